"""The texts of recent named templates that no installed package has, by hand.

Trained text stands between angles. A list has one example for each trained turn.
"""

import json

from tests.text.shapes import TOOLS

TOOL = json.dumps(TOOLS[0])
CALL = '<tool_call>\n{"name": "f", "arguments": {"x": "é"}}\n</tool_call>'

GRANITE_TOOLS = (
    "You are a helpful assistant with access to the following tools. You may call one or more "
    "tools to assist with the user query.\n\nYou are provided with function signatures within "
    f"<tools></tools> XML tags:\n<tools>\n{TOOL}\n</tools>\n\nFor each tool call, return a json "
    "object with function name and arguments within <tool_call></tool_call> XML tags:\n"
    '<tool_call>\n{"name": <function-name>, "arguments": <args-json-object>}\n</tool_call>. If a '
    "tool does not exist in the provided list of tools, notify the user that you do not have the "
    "ability to fulfill the request."
)
HERMES_TOOLS = (
    "You are a function calling AI model. You are provided with function signatures within "
    "<tools></tools> XML tags. You may call one or more functions to assist with the user query. "
    "Don't make assumptions about what values to plug into functions. Here are the available "
    'tools: <tools> {"type": "function", "function": {"name": "f", "description": "f() - \n\n", '
    '"parameters": {}} </tools>Use the following pydantic model json schema for each tool call you '
    'will make: {"properties": {"name": {"title": "Name", "type": "string"}, "arguments": '
    '{"title": "Arguments", "type": "object"}}, "required": ["name", "arguments"], "title": '
    '"FunctionCall", "type": "object"}}\nFor each function call return a json object with function '
    "name and arguments within <tool_call></tool_call> XML tags as follows:\n<tool_call>\n"
    '{"name": <function-name>, "arguments": <args-dict>}\n</tool_call>'
)
LLAMA4_TOOLS = (
    "Given the following functions, please respond with a JSON for a function call with its proper "
    "arguments that best answers the given prompt.\n\nRespond in the format "
    '{"name": function name, "parameters": dictionary of argument name and its value}.Do not use '
    f"variables.\n\n{json.dumps(TOOLS[0], indent=4)}\n\n"
)
OLMO = (
    "<|im_start|>system\nYou are Olmo, a helpful AI assistant built by Ai2. Your date cutoff is "
    "December 2024, and your model weights are available at https://huggingface.co/allenai. "
)
OLMO_TOOLS = (
    f"{OLMO}You are provided with function signatures within <functions></functions> XML tags. You "
    "may call one or more functions to assist with the user query. Output any function calls "
    "within <function_calls></function_calls> XML tags. Do not make assumptions about what values "
    f"to plug into functions.<functions>[{TOOL}]</functions><|im_end|>\n"
    "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
)
OLMO_CHAT = (
    f"{OLMO}You do not currently have access to any functions. <functions></functions><|im_end|>\n"
    "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
)
SMOLLM3 = (
    "<|im_start|>system\n## Metadata\n\nKnowledge Cutoff Date: June 2025\nReasoning Mode: /think"
    "\n\n## Custom Instructions\n\n"
)
SMOLLM3_THINKS = (
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
    "the conclusion.\n\n"
)
SMOLLM3_TOOLS = (
    "### Tools\n\nYou may call one or more functions to assist with the user query.\nYou are "
    f"provided with function signatures within <tools></tools> XML tags:\n\n<tools>\n{TOOL}\n"
    "</tools>\n\nFor each function call, return a json object with function name and arguments "
    "within <tool_call></tool_call> XML tags:\n<tool_call>\n"
    '{"name": <function-name>, "arguments": <args-json-object>}\n</tool_call>\n\n'
)
CHATML_ROUND = "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"

RECENT = {
    ("granite4", "chat"): "<|start_of_role|>system<|end_of_role|>You are a helpful assistant. "
    "Please ensure responses are professional, accurate, and safe.<|end_of_text|>\n"
    "<|start_of_role|>user<|end_of_role|>Hi<|end_of_text|>\n<|start_of_role|>assistant"
    "<|end_of_role|>«Hello<|end_of_text|>»\n<|start_of_role|>user<|end_of_role|>Why?"
    "<|end_of_text|>\n<|start_of_role|>assistant<|end_of_role|>«So.<|end_of_text|>»\n",
    ("granite4", "system"): "<|start_of_role|>system<|end_of_role|>Be kind.<|end_of_text|>\n"
    "<|start_of_role|>user<|end_of_role|>Hi<|end_of_text|>\n<|start_of_role|>assistant"
    "<|end_of_role|>«Hello<|end_of_text|>»\n",
    ("granite4", "tools"): f"<|start_of_role|>system<|end_of_role|>{GRANITE_TOOLS}<|end_of_text|>\n"
    "<|start_of_role|>user<|end_of_role|>Hi<|end_of_text|>\n<|start_of_role|>assistant"
    f"<|end_of_role|>«{CALL}<|end_of_text|>»\n<|start_of_role|>user<|end_of_role|>\n"
    "<tool_response>\n7\n</tool_response><|end_of_text|>\n<|start_of_role|>assistant"
    "<|end_of_role|>«Seven.<|end_of_text|>»\n",
    ("hermes", "chat"): f"<s>{CHATML_ROUND}«Hello<|im_end|>»\n<|im_start|>user\nWhy?<|im_end|>\n"
    "<|im_start|>assistant\n«So.<|im_end|>»\n",
    ("hermes", "system"): f"<s><|im_start|>system\nBe kind.<|im_end|>\n{CHATML_ROUND}"
    "«Hello<|im_end|>»\n",
    ("hermes", "tools"): f"<s><|im_start|>system\n{HERMES_TOOLS}<|im_end|>\n{CHATML_ROUND}"
    f"«{CALL}<|im_end|>»\n<|im_start|>tool\n<tool_response>\n7\n</tool_response><|im_end|>"
    "<|im_start|>assistant\n«Seven.<|im_end|>»\n",
    ("llama4", "chat"): "<s><|header_start|>user<|header_end|>\n\nHi<|eot|><|header_start|>"
    "assistant<|header_end|>\n\n«Hello<|eot|>»<|header_start|>user<|header_end|>\n\nWhy?<|eot|>"
    "<|header_start|>assistant<|header_end|>\n\n«So.<|eot|>»",
    ("llama4", "system"): "<s><|header_start|>system<|header_end|>\n\nBe kind.<|eot|>"
    "<|header_start|>user<|header_end|>\n\nHi<|eot|><|header_start|>assistant<|header_end|>\n\n"
    "«Hello<|eot|>»",
    ("llama4", "tools"): f"<s><|header_start|>user<|header_end|>\n\n{LLAMA4_TOOLS}Hi<|eot|>"
    "<|header_start|>assistant<|header_end|>\n\n«<|python_start|><|python_end|>"
    '{"name": "f", "parameters": {"x": "é"}}<|eot|>»<|header_start|>ipython<|header_end|>\n\n'
    '"7"<|eot|><|header_start|>assistant<|header_end|>\n\n«Seven.<|eot|>»',
    # EOS ends the last answer, and another token those before it.
    ("olmo3", "chat"): [
        f"{OLMO_CHAT}«Hello</s>»",
        f"{OLMO_CHAT}Hello<|im_end|>\n<|im_start|>user\nWhy?<|im_end|>\n<|im_start|>assistant\n"
        "«So.</s>»",
    ],
    ("olmo3", "system"): f"<|im_start|>system\nBe kind.<|im_end|>\n{CHATML_ROUND}«Hello</s>»",
    ("olmo3", "tools"): [
        f'{OLMO_TOOLS}«<function_calls>f(x="é")</function_calls></s>»',
        f'{OLMO_TOOLS}<function_calls>f(x="é")</function_calls><|im_end|>\n'
        "<|im_start|>environment\n7<|im_end|>\n<|im_start|>assistant\n«Seven.</s>»",
    ],
    ("phi4", "chat"): "<|im_start|>user<|im_sep|>Hi<|im_end|><|im_start|>assistant<|im_sep|>"
    "«Hello<|im_end|>»<|im_start|>user<|im_sep|>Why?<|im_end|><|im_start|>assistant<|im_sep|>"
    "«So.<|im_end|>»",
    ("phi4", "system"): "<|im_start|>system<|im_sep|>Be kind.<|im_end|><|im_start|>user<|im_sep|>"
    "Hi<|im_end|><|im_start|>assistant<|im_sep|>«Hello<|im_end|>»",
    ("smollm3", "system"): f"{SMOLLM3}Be kind.\n\n<|im_end|>\n{CHATML_ROUND}«Hello<|im_end|>»\n",
    ("smollm3", "thinking"): f"{SMOLLM3}{SMOLLM3_THINKS}<|im_end|>\n{CHATML_ROUND}«<think>\nHm.\n"
    "</think>\nHello<|im_end|>»\n<|im_start|>user\nWhy?<|im_end|>\n<|im_start|>assistant\n"
    "«<think>\nWell.\n</think>\nSo.<|im_end|>»\n",
    ("smollm3", "tools"): f"{SMOLLM3}{SMOLLM3_THINKS}{SMOLLM3_TOOLS}<|im_end|>\n{CHATML_ROUND}"
    f"«{CALL}<|im_end|>»\n<|im_start|>user\n7<|im_end|>\n<|im_start|>assistant\n"
    "«Seven.<|im_end|>»\n",
}
