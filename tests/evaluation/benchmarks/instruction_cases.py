"""For every instruction of IFEval: arguments, responses that follow it, and ones that do not."""

_ENGLISH = "the old farmer walked to the market and bought some bread for his family."
_GERMAN = "Der alte Bauer ging auf den Markt und kaufte etwas Brot für seine ganze Familie."

# instruction: [(arguments, [responses that follow], [responses that do not])]
CASES = {
    "keywords:existence": [
        ({"keywords": ["plum", "fig"]}, ["A Plum and two FIGS."], ["Only a plum.", ""]),
    ],
    "keywords:frequency": [
        (
            {"keyword": "plum", "frequency": 2, "relation": "at least"},
            ["plum, Plum", "plumplum"],
            ["one plum"],
        ),
        (
            {"keyword": "plum", "frequency": 2, "relation": "less than"},
            ["one plum", "none"],
            ["plum plum"],
        ),
    ],
    "keywords:forbidden_words": [
        ({"forbidden_words": ["ham"]}, ["A hamlet by the sea."], ["Ham!", "eggs and ham"]),
    ],
    "keywords:letter_frequency": [
        (
            {"letter": "Q", "let_frequency": 2, "let_relation": "at least"},
            ["Quick quail"],
            ["quick"],
        ),
        (
            {"letter": "#", "let_frequency": 2, "let_relation": "less than"},
            ["one #", "none"],
            ["## head"],
        ),
    ],
    "language:response_language": [
        ({"language": "de"}, [_GERMAN], [_ENGLISH.capitalize()]),
        ({"language": "en"}, [_ENGLISH.capitalize(), "12345 67890"], [_GERMAN]),
    ],
    "length_constraints:number_sentences": [
        (
            {"num_sentences": 3, "relation": "at least"},
            ["One came. Two left! Did three stay?"],
            ["Mr. Smith came at 5.30 sharp. Nobody else did."],
        ),
        (
            {"num_sentences": 3, "relation": "less than"},
            ["Dr. Jones met Mrs. Brown. They talked."],
            ["One came. Two left. Three stayed."],
        ),
    ],
    "length_constraints:number_paragraphs": [
        (
            {"num_paragraphs": 2},
            ["First.\n***\nSecond.", "***\nFirst.\n***\nSecond.\n***"],
            ["First.\n\nSecond.", "First.\n***\n***\nSecond.", "One.\n***\nTwo.\n***\nThree."],
        ),
    ],
    "length_constraints:number_words": [
        ({"num_words": 3, "relation": "at least"}, ["one two-three"], ["one two"]),
        ({"num_words": 3, "relation": "less than"}, ["one two"], ["one two, three"]),
    ],
    "length_constraints:nth_paragraph_first_word": [
        (
            {"num_paragraphs": 2, "nth_paragraph": 2, "first_word": "weather"},
            ["Sun.\n\nWeather, as ever.", 'Sun.\n\n"Weather" it is.'],
            ["Weather.\n\nSun.", "Sun.\n\nWeather.\n\nRain.", "Weather."],
        ),
        (
            {"num_paragraphs": 2, "nth_paragraph": 3, "first_word": "weather"},
            [],
            ["Sun.\n\nRain.", "Sun.\n\n\n\nWeather"],
        ),
    ],
    "detectable_content:number_placeholders": [
        ({"num_placeholders": 2}, ["[name] of [town]", "[][x]"], ["[name]", "[name\n] [town"]),
    ],
    "detectable_content:postscript": [
        (
            {"postscript_marker": "P.S."},
            ["Bye.\n\nP.S. Write soon.", "p. s. again"],
            ["Bye. PS: no", "P.S"],
        ),
        (
            {"postscript_marker": "P.P.S"},
            ["Bye.\nP.P.S I forgot.", "p. p. s"],
            ["Bye.\nP.S. no"],
        ),
        ({"postscript_marker": "NB"}, ["one\nnb: two"], ["one"]),
    ],
    "detectable_format:number_bullet_lists": [
        (
            {"num_bullets": 2},
            ["* one\n* two", "- one\n  - two", "* one\n**bold**\n- two"],
            ["* one", "- one\n- two\n- three", "**a\n**b"],
        ),
    ],
    "detectable_format:constrained_response": [
        ({}, ["My answer is yes.", "Well. My answer is maybe. "], ["yes", "My answer is Yes."]),
    ],
    "detectable_format:number_highlighted_sections": [
        (
            {"num_highlights": 2},
            ["*one* and *two*", "**one** and **two**", "*one* **two**"],
            ["*one*", "** ** and * *", "*one\ntwo*"],
        ),
    ],
    "detectable_format:multiple_sections": [
        (
            {"section_spliter": "Section", "num_sections": 2},
            ["Section 1\na\nSection 2\nb", "Section1 a Section2 b"],
            ["Section 1\na", "SECTION 1\nSECTION 2", "Section one Section two"],
        ),
    ],
    "detectable_format:json_format": [
        (
            {},
            ['{"a": [1]}', '```json\n{"a": 1}\n```', '```\n"text"\n```', "3"],
            ["{'a': 1}", 'Here: {"a": 1}', "```json\n```"],
        ),
    ],
    "detectable_format:title": [
        ({}, ["<<poem of joy>>\nText", "a <<b>> c"], ["<poem>", "<<>>", "<< >>", "<<a\nb>>"]),
    ],
    "combination:two_responses": [
        (
            {},
            ["One.\n******\nTwo.", "******One.******Two.******"],
            ["One.", "Same******Same", "One.******  ******Two.", "a******b******c"],
        ),
    ],
    "combination:repeat_prompt": [
        (
            {"prompt_to_repeat": "Write a poem. "},
            ["write a poem.\n\nRoses", " Write a poem. Roses"],
            ["Sure! Write a poem.", "Write a poe"],
        ),
    ],
    "startend:end_checker": [
        (
            {"end_phrase": "Any other questions? "},
            ["Done. ANY other questions?", '"Done. Any other questions?" '],
            ["Any other questions? No.", "Done."],
        ),
    ],
    "startend:quotation": [
        ({}, ['"All of it."', ' "a"\n'], ['"', "'a'", '"a" b', "“a”"]),
    ],
    "change_case:capital_word_frequency": [
        (
            {"capital_frequency": 2, "capital_relation": "at least"},
            ["STOP now, HERE", "A B-C d"],
            ["STOP Now", "U-turn"],
        ),
        (
            {"capital_frequency": 2, "capital_relation": "less than"},
            ["STOP now"],
            ["STOP IT now"],
        ),
    ],
    "change_case:english_capital": [
        ({}, [_ENGLISH.upper()], [_ENGLISH.capitalize(), _GERMAN.upper(), "123 456"]),
    ],
    "change_case:english_lowercase": [
        ({}, [_ENGLISH], [_ENGLISH.capitalize(), _GERMAN.lower(), "123"]),
    ],
    "punctuation:no_comma": [({}, ["No, said nobody".replace(",", ""), "a; b"], ["yes, no"])],
}
