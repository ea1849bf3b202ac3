"""SeqIO registrations, one module or folder per system. Importing this package imports none."""

# How the names of a system's tasks and mixtures begin -> the module that registers them.
SYSTEMS = {
    "alpaca": "tasks.alpaca",
    "bias_fairness_eval": "tasks.t0.tasks",
    "dolly": "tasks.dolly",
    "flan2021": "tasks.flan.flan2021",
    "flan_collection": "tasks.flan.collection",
    "glue_": "tasks.t5.tasks",
    "gsm8k": "tasks.gsm8k.tasks",
    "instructgpt": "tasks.instructgpt",
    "lima": "tasks.lima",
    "natural_instructions": "tasks.natural_instructions.tasks",
    "natural_instructions_v1": "tasks.natural_instructions.v1",
    "open_assistant": "tasks.open_assistant",
    "quickstart": "tasks.quickstart.tasks",
    "self_instruct": "tasks.self_instruct",
    "sharegpt": "tasks.sharegpt",
    "squad_trivia_qa": "tasks.t5.tasks",
    "super_glue_": "tasks.t5.tasks",
    "t0": "tasks.t0.tasks",
    "t5_": "tasks.t5.tasks",
    "tulu": "tasks.tulu",
    "wsc_dpr": "tasks.t5.tasks",
} | {
    f"natural_instructions_{encoding}": "tasks.natural_instructions.encodings"
    for encoding in (
        "cap64",
        "definition",
        "definition_positive2",
        "definition_positive2_explanations",
        "definition_positive2_negative2",
        "five_way",
        "positive2",
    )
}
