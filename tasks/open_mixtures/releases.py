"""The open mixtures: their data sets, parts, and published numbers of rows. Imports nothing.

`Part.weight` is the share of its rows that a recipe takes, chosen by a hash; `Part.copies` is how
often it takes each. The sources of the counts are on the page docs/systems/open_mixtures.md.
"""

from collections.abc import Mapping
from typing import NamedTuple


class Part(NamedTuple):
    """A part of a release.

    Attributes:
        rows: The published number of its rows.
        weight: The share of them that is taken.
        copies: How often each of those is taken.
        dataset: Its data set, where that is another one than the release's.
        split: Its split, where the parts are files of their own.
    """

    rows: int
    weight: float = 1.0
    copies: int = 1
    dataset: str = ""
    split: str = ""


class Release(NamedTuple):
    """A mixture.

    Attributes:
        dataset: The data set on the Hugging Face hub.
        parts: Its parts by name.
        rows: The published total; 0 where none is published.
        is_split: Whether each part has files of its own, and is a task. The rows of another
            release are mixed already: it is one task, of which an epoch is every row once.
        subset: The configuration of the data set, a folder in its repository; "" for none.
    """

    dataset: str
    parts: Mapping[str, Part]
    rows: int
    is_split: bool = False
    subset: str = ""


def _counts(**rows: int) -> dict[str, Part]:
    return {name: Part(n) for name, n in rows.items()}


DOLCI_INSTRUCT = _counts(
    wildchat=302_406, precise_if=136_833, oasst=7_132, persona_math=149_958,
    persona_algebra=19_999, persona_gsm=49_980, open_math_instruct_2=50_000,
    python_algorithms=186_345, persona_python=34_999, evol_codealpaca=107_270, coconot=10_957,
    wildguardmix=49_373, wildjailbreak=49_965, sciriff=4_557, ot3_science=99_268, aya=99_987,
    table_gpt=5_000, flan=89_981, logic_puzzles=159_882, verifiable_reasoning=310_572,
    hard_coded=69, tool_use=227_579,
)  # fmt: skip
DOLCI_THINK_7B = _counts(
    wildchat=83_054, oasst=6_800, persona_precise_if=223_123, precise_if=135_792,
    ot3_math=752_997, ot3_stem=99_269, synthetic_2=104_569, nemotron_code=113_777,
    ot3_code=88_900, python_algorithms=466_677, coconot=10_227, wildguardmix=38_315,
    wildjailbreak=41_100, aya=98_597, table_gpt=4_981, identity=290,
)  # fmt: skip
DOLCI_THINK_32B = _counts(
    wildchat=76_209, oasst=6_647, persona_precise_if=220_530, precise_if=135_722,
    ot3_math=752_997, ot3_stem=99_268, synthetic_2=104_548, nemotron_code=113_777,
    ot3_code=88_899, python_algorithms=466_676, coconot=9_549, wildguardmix=36_673,
    wildjailbreak=40_002, aya=97_156, table_gpt=4_973, identity=290,
)  # fmt: skip
SMOLLM3_MID = _counts(
    Llama_Nemotron_Post_Training_Dataset_reasoning_r1=3_644_790, OpenThoughts3_1_2M=1_135_104
)
# The 25 splits of smoltalk2's configuration SFT, with the weights of the recipe.
SMOLLM3_SFT = {
    "smoltalk_smollm3_everyday_conversations_no_think": Part(2_260),
    "smoltalk_smollm3_systemchats_30k_no_think": Part(33_997),
    "tulu_3_sft_personas_instruction_following_no_think": Part(29_970),
    "hermes_function_calling_v1_no_think": Part(8_961),
    "smoltalk_smollm3_smol_magpie_ultra_no_think": Part(406_843, 0.5),
    "smoltalk_multilingual_8languages_lang_5_no_think": Part(254_047),
    "table_gpt_no_think": Part(13_203),
    "OpenHermes_2.5_no_think": Part(384_900, 0.5),
    "OpenThoughts3_1.2M_no_think_no_think": Part(435_193, 0.4),
    "Mixture_of_Thoughts_science_no_think": Part(86_110),
    "smoltalk_smollm3_explore_instruct_rewriting_no_think": Part(30_391),
    "smoltalk_smollm3_smol_rewrite_no_think": Part(53_262),
    "smoltalk_smollm3_smol_summarize_no_think": Part(96_061),
    "LongAlign_64k_context_lang_annotated_lang_6_no_think": Part(6_249),
    "multi_turn_reasoning_if_think": Part(28_217),
    "smoltalk_everyday_convs_reasoning_Qwen3_32B_think": Part(2_057),
    "smoltalk_systemchats_Qwen3_32B_think": Part(27_436),
    "xlam_traces_no_think": Part(59_962),
    "smolagents_toolcalling_traces_think": Part(9_079),
    "s1k_1.1_think": Part(835),
    "LongAlign_64k_Qwen3_32B_yarn_131k_think": Part(7_526),
    "aya_dataset_Qwen3_32B_think": Part(15_222),
    "smoltalk_multilingual8_Qwen3_32B_think": Part(244_736, 0.3),
    "OpenThoughts3_1.2M_think": Part(1_133_524, 0.02),
    "table_gpt_Qwen3_32B_think": Part(13_201),
}
_MAGPIE = "Magpie-Align/Magpie"
NEMOTRON_V1 = _counts(
    chat=746_622, code=1_896_395, math=2_044_407, stem=20_662_167, tool_calling=310_051
)
NEMOTRON_V2 = _counts(
    stem=355_000, chat=627_720, math=239_467, code=175_000, multilingual_ja=975_202,
    multilingual_de=1_015_314, multilingual_it=1_016_503, multilingual_es=935_704,
    multilingual_fr=1_001_504,
)  # fmt: skip

RELEASES = {
    "dolci_instruct": Release("allenai/Dolci-Instruct-SFT", DOLCI_INSTRUCT, 2_152_112),
    "dolci_think_7b": Release("allenai/Dolci-Think-SFT-7B", DOLCI_THINK_7B, 2_268_468),
    "dolci_think_32b": Release("allenai/Dolci-Think-SFT-32B", DOLCI_THINK_32B, 2_253_916),
    "smollm3_mid": Release("HuggingFaceTB/smoltalk2", SMOLLM3_MID, 4_779_894, True, "Mid"),
    "smollm3_sft": Release("HuggingFaceTB/smoltalk2", SMOLLM3_SFT, 3_383_242, True, "SFT"),
    "smol_smoltalk": Release("HuggingFaceTB/smol-smoltalk", _counts(train=460_341), 460_341),
    "mixture_of_thoughts": Release("open-r1/Mixture-of-Thoughts", {}, 0, subset="all"),
    "openthoughts3": Release(
        "open-thoughts/OpenThoughts3-1.2M",
        _counts(math=850_000, code=250_000, science=100_000),
        1_200_000,
    ),
    "openthoughts_114k": Release("open-thoughts/OpenThoughts-114k", {}, 0),
    "magpie": Release(
        "Magpie-Align",
        {
            "pro_300k": Part(300_000, dataset=f"{_MAGPIE}-Pro-300K-Filtered", split="train"),
            "pro_mt_300k": Part(300_000, dataset=f"{_MAGPIE}-Pro-MT-300K-v0.1", split="train"),
            "reasoning": Part(150_000, dataset=f"{_MAGPIE}-Reasoning-V1-150K", split="train"),
        },
        750_000,
        is_split=True,
    ),
    "nemotron_v1": Release(
        "nvidia/Nemotron-Post-Training-Dataset-v1", NEMOTRON_V1, 25_659_642, True
    ),
    "nemotron_v2": Release("nvidia/Nemotron-Post-Training-Dataset-v2", NEMOTRON_V2, 0, True),
    "nanochat_sft": Release(
        "nanochat",
        {
            "smoltalk": Part(460_341, dataset="HuggingFaceTB/smol-smoltalk", split="train"),
            "mmlu": Part(99_842, copies=3, dataset="cais/mmlu", split="auxiliary_train"),
            "gsm8k": Part(7_473, copies=4, dataset="openai/gsm8k", split="train"),
        },
        0,
        is_split=True,
    ),
}
