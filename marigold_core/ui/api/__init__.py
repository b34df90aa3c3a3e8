"""The endpoints of ``serving.api`` as Gradio offers them.

Wrong values are refused by a validator before they take a place in the queue. Every other event of the page is private.
A raw call may leave arguments out, and what cannot be a call is refused before Gradio reads it. A client which goes
away or cancels stops its job within a step.
"""
