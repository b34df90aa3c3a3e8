"""The HTTP endpoints: one table of what each takes and answers; the arguments are fields of the settings models.

Names, ranges, defaults and descriptions come from the models. Wrong values are refused by a validator before they take
a place in the queue. Every other event of the page is private. A raw call may leave arguments out, and what cannot be a
call is refused before Gradio reads it. An endpoint is a generator, so that a client which goes away or cancels stops
its job within a step.
"""
