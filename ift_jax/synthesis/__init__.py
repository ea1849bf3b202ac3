"""Data that a model makes: `ift synthesize`.

`generator` says what is asked of a model, whichever it is: `own_decoder` answers with a model that
this package decodes, and `endpoint` with one behind an HTTP interface like OpenAI's. `journal`
keeps the answers, so that everything made of them can be made again; `answers_so_far` keeps those
of an endpoint's call that is under way.

`rounds` makes a data set round by round by one of the recipes `self_instruct`, `single_stage`
(Alpaca's variant), and `magpie`. They read `seeds`, write `prompts`, choose by `draws`, and leave
out what `filters` and `similarity` reject.
"""
