r"""SmolLM3: mid-training on reasoning, then supervised finetuning with and without it, as stages.

    ift train --config configs/smollm3.py:3b,SMOLLM3_3B_BASE --workdir runs/smollm3 \
        --config.data.root=DATA

The numbers are those of the alignment-handbook's recipes/smollm3 (mid.yaml and sft.yaml).

- Mid-training writes plain ChatML and trains all tokens; the second stage trains answers.
- A row of the second stage says in `chat_template_kwargs` whether it thinks, and which tools and
  instructions stand in its system turn. The original writes the day of tokenizing there; here it is
  fixed, by the template option `date`.
- The original's mask has the header `<|im_start|>assistant` and the empty block of an answer
  without thought; here neither is trained, because generation is prompted with them.
- A weight of sft.yaml is the share of a split's rows that is taken; here a hash of a row decides.
"""

from ml_collections import ConfigDict

from ift_jax.config.files import default_config
from ift_jax.config.recipe_arguments import size_and_checkpoint

SIZES = ("3b",)
DATE = "2025-07-08"  # The day of the model's release.
_MONTHS = "January February March April May June July August September October November December"
_THINKS = (
    "You are a helpful AI assistant named SmolLM, trained by Hugging Face. Your role as an "
    "assistant involves thoroughly exploring questions through a systematic thinking process "
    "before providing the final precise and accurate solutions. This requires engaging in a "
    "comprehensive cycle of analysis, summarizing, exploration, reassessment, reflection, "
    "backtracking, and iteration to develop well-considered thinking process. Please structure "
    "your response into two main sections: Thought and Solution using the specified format: "
    "<think> Thought section </think> Solution section. In the Thought section, detail your "
    "reasoning process in steps. Each step should include detailed considerations such as "
    "analysing questions, summarizing relevant findings, brainstorming new ideas, verifying the "
    "accuracy of the current steps, refining any errors, and revisiting previous steps. In the "
    "Solution section, based on various attempts, explorations, and reflections from the Thought "
    "section, systematically present the final solution that you deem correct. The Solution "
    "section should be logical, accurate, and concise and detail necessary steps needed to reach "
    "the conclusion."
)
_ANSWERS = "You are a helpful AI assistant named SmolLM, trained by Hugging Face."
# A system turn of four sections, then ChatML.
TEMPLATE = (
    "{%- set thinks = enable_thinking is not defined or enable_thinking -%}"
    "{%- set asked = messages[0].content if messages[0].role == 'system' else '' -%}"
    "{%- set asked = asked or custom_instructions or '' -%}"
    "{{- '<|im_start|>system\\n## Metadata\\n\\nKnowledge Cutoff Date: June 2025\\n' -}}"
    f"{{%- set months = '{_MONTHS}'.split(' ') -%}}"
    "{{- 'Today Date: ' + date[8:10] + ' ' + months[date[5:7] | int - 1] -}}"
    "{{- ' ' + date[:4] + '\\n' -}}"
    "{{- 'Reasoning Mode: ' + ('/think' if thinks else '/no_think') + '\\n\\n' -}}"
    f"{{%- set asked = asked or ('{_THINKS}' if thinks else '{_ANSWERS}') -%}}"
    "{{- '## Custom Instructions\\n\\n' + asked + '\\n\\n## Tools\\n\\n' -}}"
    "{{- '### XML Tools\\n\\n' + (xml_tools | string if xml_tools else 'None') -}}"
    "{{- '\\n\\n### Python Tools\\n\\n' + (python_tools | string if python_tools else 'None') -}}"
    "{{- '\\n\\n<|im_end|>\\n' -}}"
    "{%- for message in messages -%}"
    "{%- if message.role == 'assistant' -%}"
    "{{- '<|im_start|>assistant\\n' + ('' if thinks else '<think>\\n\\n</think>\\n') -}}"
    "{%- generation -%}{{- message.content.lstrip('\\n') + '<|im_end|>' -}}{%- endgeneration -%}"
    "{{- '\\n' -}}"
    "{%- elif message.role != 'system' -%}"
    "{{- '<|im_start|>user\\n' + message.content + '<|im_end|>\\n' -}}"
    "{%- endif -%}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}"
    "{{- '<|im_start|>assistant\\n' + ('' if thinks else '<think>\\n\\n</think>\\n') -}}"
    "{%- endif -%}"
)


def get_config(argument: str = "3b") -> ConfigDict:
    """Returns the stages of "SIZE" or "SIZE,CHECKPOINT"."""
    _, checkpoint = size_and_checkpoint(argument, SIZES)
    config = default_config("decoder")
    config.seed = 42
    config.data.modules = ("tasks.open_mixtures.tasks",)
    config.data.split = "all"  # Every row; "train" keeps one in two hundred for the eval loss.
    config.model.init_from = checkpoint or "SmolLM3-3B-Base"
    config.model.dtype = "bfloat16"
    config.model.remat = "full"
    config.optimizer.name = "adamw"
    config.optimizer.learning_rate = 2e-5
    config.optimizer.schedule = "cosine"
    config.optimizer.final_ratio = 0.1
    config.optimizer.warmup_ratio = 0.03
    config.optimizer.clip_norm = 0.2
    config.loss.normalization = "tokens"  # average_tokens_across_devices.
    config.train.batch_size = 128
    config.train.epochs = 5.0
    config.mesh.data = 1
    config.mesh.fsdp = -1
    config.stages = [
        {
            "name": "mid",
            "data": {"mixture": "smollm3_mid", "max_length": 32_768},
            "format": {
                "template": "chatml",
                "train_roles": ("system", "user", "assistant", "tool"),
            },
        },
        {
            "name": "sft",
            "data": {"mixture": "smollm3_sft", "max_length": 65_536},
            "format": {"template": TEMPLATE, "template_options": (f'date="{DATE}"',)},
        },
    ]
    return config
