"""Write children's stories from the grammar in `stories.grammar` into a JSON-lines file.

The grammar file holds word lists, rules and plots. Its notation:

    @toy: ball|kite|drum        a word list
    sad:                        a rule; each indented line is one way to expand it
    plot lost (toy spot*3)      a plot: its beats are the indented lines, told in order; `spot*3` draws three
                                different words in advance ($spot1 $spot2 $spot3)
    {a|b|}                      a choice, which may nest and may be empty
    <sad>                       expand a rule
    $toy                        a word of the list, the same throughout a story; $Toy the same with a capital letter
    $h $f $o                    the names of the hero, the friend and another animal or child
    $h.he $h.him $h.his         pronouns (and .himself); $h.He with a capital letter
    $h.kind $h.home $h.food     what the character is, where it lives, what it eats
    $p $p.he ...                a grown-up of the hero's family ("mom")
    / at the start of a beat    the beat may open a paragraph
    ? at the start of a beat    the beat may be left out
"""

import argparse
import json
import random
import re
from pathlib import Path

PRONOUNS = {"m": dict(he="he", him="him", his="his", himself="himself"),
            "f": dict(he="she", him="her", his="her", himself="herself")}
CHOICE = re.compile(r"\{([^{}]*)\}")
RULE = re.compile(r"<([a-z_]+)>")
ASKS = re.compile(r"(What (will|do|if|is|can|does)|Where|Who|Why|How (do|can|will|did)|When will|Can|May|Will|Shall|Did|Is|Are|Have) ")
TELLS = re.compile(r"(I|It|My|Oh|This|We|Look|Come|When it) ")
WORD = re.compile(r"\$([A-Za-z]+[0-9]?)(?:\.([A-Za-z]+))?")


class Grammar:
    """The parsed grammar file: lists of words, rules and plots."""

    def __init__(self, text):
        self.lists, self.rules, self.plots = {}, {}, {}
        current = None
        for line in text.splitlines():
            if not line.strip() or line.startswith("#"):
                continue
            if line.startswith(" "):
                current.append(line.strip())
            elif line.startswith("@"):
                name, words = line[1:].split(":", 1)
                self.lists.setdefault(name, []).extend(w.strip() for w in words.split("|"))
            elif line.startswith("plot "):
                name, draws = re.fullmatch(r"plot (\w+) \((.*)\)", line).groups()
                current = []
                self.plots[name] = (draws.split(), current)
            else:
                current = self.rules.setdefault(line.rstrip(":"), [])


def capital(text):
    return text[:1].upper() + text[1:]


class Story:
    """One story: its cast and drawn words, and the expansion of its beats."""

    def __init__(self, grammar, plot, rng):
        self.g, self.rng, self.words, self.used = grammar, rng, {}, set()
        draws, self.beats = grammar.plots[plot]
        self.cast()
        for draw in draws:
            self.draw(*draw.partition("*")[::2])

    def draw(self, name, count):
        if not count:
            self.words[name] = {"": self.rng.choice(self.g.lists[name])}
            return
        for i, word in enumerate(self.rng.sample(self.g.lists[name], int(count))):
            self.words[f"{name}{i + 1}"] = {"": word}

    def person(self, role, animal):
        """Choose a character with a name and a kind nobody else in the story has."""
        while True:
            sex = self.rng.choice("mf")
            name = self.rng.choice(self.g.lists["boy" if sex == "m" else "girl"])
            kind, home, food = ("boy" if sex == "m" else "girl"), "house", self.rng.choice(self.g.lists["treat"])
            if animal:
                kind, home, food = self.rng.choice(self.g.lists["animal"]).split("/")
            if name not in self.used and (kind not in self.used or not animal):
                break
        self.used |= {name, kind}
        self.words[role] = {"": name, "kind": kind, "home": home, "food": food, **PRONOUNS[sex]}

    def cast(self):
        animals = self.rng.random() < 0.5
        self.person("h", animals)
        self.person("f", animals or self.rng.random() < 0.25)
        self.person("o", True)
        grown, sex = self.rng.choice(self.g.lists["grownup"]).split("/")
        self.words["p"] = {"": grown, **PRONOUNS[sex]}

    def word(self, match):
        name, attr = match.group(1), match.group(2) or ""
        lower = name.lower()
        if lower not in self.words:
            self.draw(lower, "")
        value = self.words[lower].get(attr) or capital(self.words[lower][attr.lower()])
        return value if name == lower else capital(value)

    def expand(self, text):
        """Resolve rules and choices (innermost first), then words."""
        while True:
            text, choices = CHOICE.subn(lambda m: self.rng.choice(m.group(1).split("|")), text)
            text, rules = RULE.subn(lambda m: self.rng.choice(self.g.rules[m.group(1)]), text)
            if not choices and not rules:
                return WORD.sub(self.word, text)

    def opened(self):
        """The beats; some stories begin at once ("One day, a little fox named Pip ...") instead of with an intro."""
        first, rest = self.beats[0], self.beats[1:]
        if first.startswith("<intro> <day> $h ") and self.rng.random() < 0.4:
            first = first.replace("<intro> <day> $h ", "<day> a <young> $h.kind named $h ", 1)
        return [first, *rest]

    def tell(self):
        paragraphs = self.rng.random() < 0.6
        text = ""
        for beat in self.opened():
            if beat.startswith("?") and self.rng.random() < 0.5:
                continue
            beat = beat.lstrip("?")
            joint = "\n\n" if beat.startswith("/") and paragraphs and self.rng.random() < 0.8 else " "
            text += joint + self.expand(beat.lstrip("/"))
        return tidy(text)


def mark(match):
    """Give the last sentence of a quotation the mark that fits: questions get '?', statements ','."""
    speech, end = match.groups()
    last = re.split(r"[.!?] ", speech)[-1]
    if end in ",!" and ASKS.match(last):
        end = "?"
    elif end == "?" and TELLS.match(last):
        end = ","
    return f'"{speech}{end}"'


def tidy(text):
    """Spaces, articles, marks and capital letters."""
    text = re.sub(r'"([^"]*)([,?!])"', mark, text)
    text = re.sub(r" +", " ", text)
    text = re.sub(r" ?(\n\n) ?", r"\1", text)
    text = re.sub(r" ([.,!?])", r"\1", text)
    text = re.sub(r"\b([Aa]) (?=[aeiouAEIOU])", r"\1n ", text)
    text = re.sub(r"(^|[.!?] |\n)([a-z])", lambda m: m.group(1) + m.group(2).upper(), text.strip())
    return text


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--grammar", type=Path, default=Path(__file__).with_name("stories.grammar"))
    ap.add_argument("--out", type=Path, help="JSON-lines file (default: print the stories)")
    ap.add_argument("--count", type=int, default=10)
    ap.add_argument("--seed", type=int, default=1)
    ap.add_argument("--plot", help="tell only this plot")
    args = ap.parse_args()
    grammar, rng = Grammar(args.grammar.read_text(encoding="utf-8")), random.Random(args.seed)
    names = [args.plot] if args.plot else list(grammar.plots)
    stories = ((n, Story(grammar, n, rng).tell()) for n in (names[i % len(names)] for i in range(args.count)))
    if not args.out:
        for name, text in stories:
            print(f"--- {name}\n{text}\n")
        return
    with open(args.out, "w", encoding="utf-8") as out:
        for name, text in stories:
            out.write(json.dumps({"plot": name, "text": text}) + "\n")


if __name__ == "__main__":
    main()
