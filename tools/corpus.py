"""Strings that tokenizers disagree about: 24,000 of them, a function of one seed and of nothing on the machine."""

import random
import unicodedata

SEED = 7

# Blocks that are younger than the database of `unicodedata.ucd_3_2_0`, and letters in them that are settled.
YOUNG = [
    (0x0514, 0x0527),
    (0x07C0, 0x07E7),
    (0x0840, 0x0858),
    (0x0D7A, 0x0D7F),
    (0x1000, 0x102A),
    (0x1380, 0x138F),
    (0x1A20, 0x1A54),
    (0x1B05, 0x1B33),
    (0x1C00, 0x1C23),
    (0x1C50, 0x1C59),
    (0x2C00, 0x2C2E),
    (0x2D30, 0x2D65),
    (0xA4D0, 0xA4F7),
    (0xA500, 0xA60C),
    (0xA8E0, 0xA8F1),
    (0xA900, 0xA92D),
    (0x10000, 0x1000B),
    (0x10400, 0x1049D),
    (0x11103, 0x11126),
    (0x12000, 0x1206F),
    (0x1F300, 0x1F5FF),
    (0x1F600, 0x1F64F),
    (0x1F680, 0x1F6C5),
    (0x1F910, 0x1F92F),
    (0x1F950, 0x1F96B),
    (0x1F1E6, 0x1F1FF),
]

SCRIPTS = {
    "latin": (0x41, 0x24F),
    "ipa": (0x250, 0x2AF),
    "greek": (0x391, 0x3CE),
    "cyrillic": (0x410, 0x44F),
    "armenian": (0x561, 0x586),
    "hebrew": (0x5D0, 0x5EA),
    "arabic": (0x620, 0x64A),
    "devanagari": (0x905, 0x94D),
    "bengali": (0x985, 0x9B9),
    "tamil": (0xB85, 0xBB9),
    "thai": (0xE01, 0xE4E),
    "lao": (0xE81, 0xEC4),
    "tibetan": (0xF40, 0xF69),
    "georgian": (0x10D0, 0x10F6),
    "hangul": (0xAC00, 0xD7A3),
    "ethiopic": (0x1200, 0x1248),
    "khmer": (0x1780, 0x17B3),
    "mongolian": (0x1820, 0x1877),
    "kana": (0x3041, 0x30FE),
    "han": (0x4E00, 0x9FA5),
    "fullwidth": (0xFF01, 0xFF5E),
    "maths": (0x1D400, 0x1D7FF),
    "gothic": (0x10330, 0x1034A),
    "braille": (0x2800, 0x28FF),
}

SPACES = " \t\n\r\v\f\u00a0\u0085\u1680\u2002\u2003\u2009\u200a\u2028\u2029\u202f\u205f\u3000\u200b\u200d\u2060\ufeff\u180e\u2581"
PUNCTUATION = "!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~¡§«»¿‐–—‘’“”…、。「」！？€£¥©®™°±×÷"
DIGITS = "0123456789" * 4 + "²³¹½¾①Ⅷ٣४៣７𝟘௧"
CONTRACTIONS = [
    "'s",
    "'t",
    "'re",
    "'ve",
    "'m",
    "'ll",
    "'d",
    "'S",
    "'T",
    "'RE",
    "'Ve",
    "'M",
    "'lL",
    "'D",
    "'ſ",
    "’s",
    "'x",
    "''s",
    "'",
    "'rE",
    "'L",
]
WORDS = (
    "the of and to in is you that it he was for on are as with his they I at be this have from or one had by word but not what all were "
    "we when your can said there use an each which she do how their if will up other about out many then them these so some her would make "
    "Hello WORLD iPhone McDonald naïve café résumé Ångström straße façade coöperate Zürich İstanbul DŽ ﬁne ﬂow don won isn aren he it they "
    "internationalization antidisestablishmentarianism supercalifragilisticexpialidocious pneumonoultramicroscopicsilicovolcanoconiosis"
).split()
EMOJI = (
    "😀 😂 🤖 👍 👍🏽 👩‍🚀 👨‍👩‍👧‍👦 👩🏿‍❤️‍💋‍👨🏻 🏳️‍🌈 🏴‍☠️ 🇩🇪 🇯🇵🇺🇸 ❤️ ❤ ☺️ ✔️ #️⃣ 1️⃣ *️⃣ 🏴󠁧󠁢󠁳󠁣󠁴󠁿 🧑🏻‍🤝‍🧑🏾 👁️‍🗨️ 🦙 🕴🏼 ☠ ⚡️ ⌚ ⏰ ♻️ 🅰️ 🈚 🀄 🃏"
).split()
MARKS = "\u0300\u0301\u0302\u0303\u0308\u0327\u0328\u0331\u0345\u034f\u0483\u05b0\u05bc\u064b\u0651\u093c\u094d\u0e31\u0e38\u1ab0\u20d0\u20dd\u20e3\u3099\ufe0e\ufe0f\ufe20"
CODE = [
    "fn main() {\n    let x: Vec<u8> = vec![0; 16];\n}\n",
    "def f(self, *args, **kwargs):\n\treturn self.__class__.__name__\n",
    "#include <stdio.h>\r\n",
    "for (int i = 0; i < n; ++i) {\n        a[i] += b[i] * c;\n    }",
    "SELECT * FROM t WHERE id = 'x' -- no\n",
    '<div class="a b">&nbsp;&#39;</div>',
    "if x != 0x1F && !y || z >>= 2;",
    "https://example.org/a/b?c=d&e=%20f#g",
    "user.name+tag@mail.example",
    "C:\\Users\\me\\file.txt",
    "/usr/local/bin/x --flag=1",
    "$HOME/${x:-y} `cmd` $(( 1+2 ))",
    '{"key": [1, 2.5e-10, null, "\\u00e9\\n"]}',
    "\t\tif err != nil {\n\t\t\treturn err\n\t\t}\n",
    "a->b::c.d[e](f)",
    "// ====== x ====== //",
    "\\begin{equation} \\alpha_{i}^{2} \\end{equation}",
    "| a | b |\n|---|:-:|\n| 1 | 2 |",
    "- [ ] x\n  - [x] y\n",
    "@media (min-width:640px){.a>b~c+d{color:#FFF!important}}",
]
SPECIAL = (
    "<|endoftext|> <|im_start|> <|im_end|> <|begin_of_text|> <|end_of_text|> <|eot_id|> <|start_header_id|> <|reserved_special_token_0|> <s> </s> "
    "<unk> <pad> <bos> <eos> <start_of_turn> <end_of_turn> <mask> [multimodal] <unused0> <unused99> <start_of_image> <0x0A> <0xFF> <0x00> <repo_name> "
    "<file_sep> <jupyter_code> [PAD151646] <|fim_prefix|> <html> </table> <h1> <b> </strong> <| |> <|im_ <|endoftext| [INST] [/INST] <<SYS>>"
).split()


def strings():
    """The corpus, without repetitions, in a fixed order."""
    rng = random.Random(SEED)
    seen = dict.fromkeys([""])
    for make, count in KINDS:
        for i in range(count):
            seen.setdefault(make(rng, i))
    for text in code_points(rng):
        seen.setdefault(text)
    return list(seen)


# --------------------------------------------------------------------------------------------------------------------
# kinds: a function of the random generator and the number of the string


def sentence(rng, _):
    """Words as people write them."""
    words = [rng.choice(WORDS) for _ in range(rng.randint(1, 14))]
    words = [
        rng.choice([w, w, w, w.capitalize(), w.upper(), w + rng.choice(CONTRACTIONS), w + rng.choice(PUNCTUATION)])
        for w in words
    ]
    return (
        rng.choice(["", "", " ", "\n"])
        + rng.choice([" ", " ", " ", "  ", "\n"]).join(words)
        + rng.choice(["", ".", " ", "?\n", "!!!"])
    )


def script(rng, i):
    """Words of one script, with digits, marks and punctuation of others."""
    low, high = list(SCRIPTS.values())[i % len(SCRIPTS)]
    words = ["".join(chr(rng.randint(low, high)) for _ in range(rng.randint(1, 9))) for _ in range(rng.randint(1, 6))]
    extra = lambda: rng.choice(
        ["", "", rng.choice(PUNCTUATION), rng.choice(DIGITS), rng.choice(MARKS), rng.choice(CONTRACTIONS)]
    )
    return (
        rng.choice(["", " "]).join(word + extra() for word in words)
        if rng.random() < 0.3
        else " ".join(word + extra() for word in words)
    )


def mixture(rng, _):
    """A few short things of any kind, put together with and without spaces."""
    makers = [
        lambda: rng.choice(WORDS),
        lambda: rng.choice(EMOJI),
        lambda: rng.choice(CONTRACTIONS),
        lambda: rng.choice(SPACES) * rng.randint(1, 5),
        lambda: digits(rng),
        lambda: rng.choice(PUNCTUATION) * rng.randint(1, 4),
        lambda: rng.choice(CODE),
        lambda: rng.choice(MARKS),
        lambda: rng.choice(SPECIAL),
        lambda: letter(rng),
        lambda: chr(rng.randint(0, 0x24F)),
    ]
    return rng.choice(["", "", " "]).join(rng.choice(makers)() for _ in range(rng.randint(2, 10)))


def spaces(rng, _):
    """Runs of white space, of one kind and mixed, at either end of words, digits and punctuation."""
    kinds = SPACES if rng.random() < 0.4 else rng.choice([" ", " \n", "\n", "\t", " \t\n\r", "\r\n"])
    run = lambda: "".join(rng.choice(kinds) for _ in range(rng.choice([0, 1, 1, 2, 3, 4, 7, 8, 9, 16, 31, 33])))
    word = lambda: rng.choice(["a", "1", "!", "é", "'s", "中", "", rng.choice(WORDS)])
    return "".join(run() + word() for _ in range(rng.randint(1, 5))) + run()


def numbers(rng, _):
    """Digits of any script, grouped in every way."""
    return rng.choice(["", " ", "-", "$", "a"]).join(digits(rng) for _ in range(rng.randint(1, 5))) + rng.choice(
        ["", "%", " kg", "th", "'s", "\n"]
    )


def contractions(rng, _):
    """Apostrophes with letters of either case after them."""
    return rng.choice(["", " "]).join(
        rng.choice(WORDS) + rng.choice(CONTRACTIONS) + rng.choice(["", "", "n", " ", "E", "1", "\n"])
        for _ in range(rng.randint(1, 5))
    )


def emoji(rng, _):
    """Sequences of emoji, some of them broken."""
    text = rng.choice(["", "", " "]).join(rng.choice(EMOJI) for _ in range(rng.randint(1, 6)))
    cut = rng.randint(0, len(text))
    return text if rng.random() < 0.6 else text[:cut] + rng.choice(WORDS) + text[cut:]


def marks(rng, _):
    """Combining marks after letters, spaces, digits and nothing."""
    return "".join(
        rng.choice(["a", "E", "क", " ", "1", "ا", "か", "n", "ö", "."])
        + "".join(rng.choice(MARKS) for _ in range(rng.randint(0, 3)))
        for _ in range(rng.randint(1, 10))
    )


def code(rng, _):
    """Pieces of programs, indented and cut."""
    text = "".join(
        rng.choice(["", " " * rng.randint(1, 12), "\t" * rng.randint(1, 4)]) + rng.choice(CODE)
        for _ in range(rng.randint(1, 3))
    )
    return text[rng.randint(0, 5) :][: rng.randint(1, 120)]


def noise(rng, _):
    """Random bytes, with what is not UTF-8 replaced."""
    return bytes(rng.choice([rng.randrange(256), rng.randrange(32, 127)]) for _ in range(rng.randint(1, 40))).decode(
        "utf-8", "replace"
    )


def specials(rng, _):
    """The texts of special tokens inside others."""
    part = lambda: rng.choice(
        [
            rng.choice(SPECIAL),
            rng.choice(SPECIAL),
            rng.choice(WORDS),
            rng.choice(SPACES) * rng.randint(1, 3),
            rng.choice("<|>[]s/"),
        ]
    )
    return rng.choice(["", "", " "]).join(part() for _ in range(rng.randint(1, 7)))


def long_run(rng, i):
    """One thing many times over."""
    unit = [
        " ",
        "a",
        "\n",
        "\t",
        "1",
        "!",
        "ab",
        "é",
        "中",
        "👍🏽",
        "'s",
        " a",
        "=-",
        "\u0301",
        "\r\n",
        "A1",
        "▁",
        "<s>",
        "\x00",
        "ſ",
    ][i % 20]
    return rng.choice(["", "x", " "]) + unit * rng.choice([50, 127, 512, 1000, 2500]) + rng.choice(["", "x", " "])


def anything(rng, _):
    """Characters of the whole of Unicode."""
    return "".join(letter(rng) for _ in range(rng.randint(1, 20)))


def letter(rng):
    """One character that has been assigned for many years."""
    while True:
        point = rng.choice([rng.randint(0, 0x2FFF), rng.randint(0, 0xFFFF), rng.randint(0x10000, 0x1FFFF)])
        if assigned(point):
            return chr(point)


def assigned(point):
    """True of characters in the Unicode 3.2 database, which Python always has, and in the younger blocks above."""
    if 0xD800 <= point < 0xE000:
        return False
    return unicodedata.ucd_3_2_0.category(chr(point)) != "Cn" or any(low <= point <= high for low, high in YOUNG)


def digits(rng):
    return "".join(rng.choice(DIGITS) for _ in range(rng.randint(1, 9)))


def code_points(rng):
    """Every assigned character next to a letter, a digit, a space and a mark, so that its class shows; of the many alike ones some."""
    points = [
        p for p in range(0x20000) if assigned(p) and not (0x3400 <= p < 0xD7A4 and p % 16) and not 0xE000 <= p < 0xF900
    ]
    for start in range(0, len(points), 8):
        yield "".join(f"a{chr(p)}b {chr(p)}1{chr(p)}! " for p in points[start : start + 8])


KINDS = [
    (sentence, 3500),
    (script, 4000),
    (mixture, 3500),
    (spaces, 2000),
    (numbers, 1200),
    (contractions, 1200),
    (emoji, 1000),
    (marks, 1000),
    (code, 1500),
    (noise, 1000),
    (specials, 1500),
    (long_run, 120),
    (anything, 1000),
]
