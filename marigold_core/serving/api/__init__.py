"""The endpoints: one table of what each takes and answers; the arguments are fields of the settings models.

Names, ranges, defaults and descriptions come from the models. The page's server declares them to Gradio (``ui.api``)
and to MCP clients (``ui.mcp_tools``), ``serving.ray`` offers them on a cluster. An endpoint is a generator, so that
closing it stops its job within a step.
"""
