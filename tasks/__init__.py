"""SeqIO registrations, one module or folder for each system. Importing this package imports none.

The module of a system has a function `register(root)`, which registers its tasks and mixtures.
"""

_OPEN = "tasks.open_mixtures.tasks"
_ENCODINGS = "tasks.natural_instructions.encodings"

# The beginning of the names of a system's tasks and mixtures -> the module that registers them.
# The longest beginning decides.
SYSTEMS = {
    "alpaca": "tasks.alpaca",
    "bias_fairness_eval": "tasks.t0.tasks",
    "dolci_": _OPEN,
    "dolly": "tasks.dolly",
    "flan2021": "tasks.flan.flan2021",
    "flan_collection": "tasks.flan.collection",
    "glue_": "tasks.t5.tasks",
    "gsm8k": "tasks.gsm8k.tasks",
    "hermes4_": _OPEN,
    "instructgpt": "tasks.instructgpt",
    "lima": "tasks.lima",
    "mixture_of_thoughts": _OPEN,
    "magpie": _OPEN,
    "nanochat_sft": _OPEN,
    "natural_instructions": "tasks.natural_instructions.tasks",
    "natural_instructions_cap64": _ENCODINGS,
    "natural_instructions_definition": _ENCODINGS,
    "natural_instructions_definition_positive2": _ENCODINGS,
    "natural_instructions_definition_positive2_explanations": _ENCODINGS,
    "natural_instructions_definition_positive2_negative2": _ENCODINGS,
    "natural_instructions_five_way": _ENCODINGS,
    "natural_instructions_positive2": _ENCODINGS,
    "natural_instructions_v1": "tasks.natural_instructions.v1",
    "nemotron_v": _OPEN,
    "open_assistant": "tasks.open_assistant",
    "openthoughts": _OPEN,
    "quickstart": "tasks.quickstart.tasks",
    "self_instruct": "tasks.self_instruct",
    "sharegpt": "tasks.sharegpt",
    "smol_smoltalk": _OPEN,
    "smollm3_": _OPEN,
    "squad_trivia_qa": "tasks.t5.tasks",
    "super_glue_": "tasks.t5.tasks",
    "t0": "tasks.t0.tasks",
    "t5_": "tasks.t5.tasks",
    "tulu": "tasks.tulu",
    "wsc_dpr": "tasks.t5.tasks",
}
