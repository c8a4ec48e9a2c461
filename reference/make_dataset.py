# /// script
# requires-python = ">=3.10"
# ///
"""Makes the instruction dataset of the embedded models, in Alpaca's schema (instruction, input, output).

Standard library only and seeded: the same arguments give the same bytes.

    python reference/make_dataset.py                          writes data/instructions-eval.json and a train sample
    python reference/make_dataset.py --train 800000 --output train.jsonl     also writes the whole training set

Every family draws a question and its answer from a seeded generator; a sample's answer follows from its question
alone. The 1,000 evaluation samples are drawn first; a training sample with the (instruction, input) of one of them
is thrown away, so the two sets are disjoint.
"""

import argparse
import json
import random
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import lexicon as lex

EVAL_SEED, TRAIN_SEED = 20, 21
EVAL_SAMPLES, TRAIN_SAMPLE = 1_000, 2_000
SHARD = 20_000  # training samples a seed: shards are made in parallel and joined in order
DATA = Path(__file__).resolve().parent.parent / "data"

FAMILIES = {}


def family(make):
    """Registers `make(rng) -> (instruction, input, output)` under its own name."""
    FAMILIES[make.__name__] = make
    return make


def wording(rng, pairs):
    """One of several (question, answer) templates: the wording of the question decides that of the answer."""
    return rng.choice(pairs)


def join_words(words):
    return ", ".join(words)


# ---- facts ------------------------------------------------------------------------------------------------------


@family
def capital(rng):
    country = rng.choice(list(lex.CAPITALS))
    question, answer = wording(rng, [
        ("What is the capital of {0}?", "The capital of {0} is {1}."),
        ("Name the capital city of {0}.", "The capital city of {0} is {1}."),
        ("Which city is the capital of {0}?", "{1} is the capital of {0}."),
        ("Tell me the capital of {0}.", "The capital of {0} is {1}."),
        ("In one word, what is the capital of {0}?", "{1}"),
    ])  # fmt: skip
    return question.format(country), "", answer.format(country, lex.CAPITALS[country])


@family
def antonym(rng):
    word = rng.choice(list(lex.ANTONYMS))
    question, answer = wording(rng, [
        ("What is the opposite of {0}?", "The opposite of {0} is {1}."),
        ("Give an antonym of the word {0}.", "An antonym of {0} is {1}."),
        ("Which word means the opposite of {0}?", "The word {1} means the opposite of {0}."),
    ])  # fmt: skip
    return question.format(word), "", answer.format(word, lex.ANTONYMS[word])


@family
def plural(rng):
    word = rng.choice(list(lex.PLURALS))
    question, answer = wording(rng, [
        ("What is the plural of {0}?", "The plural of {0} is {1}."),
        ("Write the plural form of the word {0}.", "The plural form of {0} is {1}."),
        ("One {0}, two what?", "One {0}, two {1}."),
    ])  # fmt: skip
    return question.format(word), "", answer.format(word, lex.PLURALS[word])


@family
def translate(rng):
    language = rng.choice(list(lex.TRANSLATIONS))
    word = rng.choice(list(lex.TRANSLATIONS[language]))
    question, answer = wording(rng, [
        ("Translate the word {0} into {1}.", "The {1} word for {0} is {2}."),
        ("What is {0} in {1}?", "In {1}, {0} is {2}."),
        ("How do you say {0} in {1}?", "You say {2}, which is the {1} word for {0}."),
    ])  # fmt: skip
    return question.format(word, language), "", answer.format(word, language, lex.TRANSLATIONS[language][word])


@family
def describe(rng):
    thing = rng.choice(list(lex.DESCRIPTIONS))
    text = lex.DESCRIPTIONS[thing]
    noun = " ".join(text.split()[:2]).lower()
    question = rng.choice([
        "Describe {}.", "What is {}?", "Explain in one sentence what {} is.", "Tell me what {} is.",
        "Give a short definition of {}.",
    ])  # fmt: skip
    return question.format(noun), "", text


@family
def how_to(rng):
    task = rng.choice(list(lex.HOW_TO))
    question = rng.choice([
        "How do I {}?", "Explain how to {}.", "Give me three steps to {}.", "What is the best way to {}?",
        "Write short instructions: how can I {}?",
    ])  # fmt: skip
    return question.format(task), "", lex.HOW_TO[task]


# ---- numbers ----------------------------------------------------------------------------------------------------


@family
def add(rng):
    a, b = rng.randint(1, 99), rng.randint(1, 99)
    question, answer = wording(rng, [
        ("What is {0} plus {1}?", "{0} plus {1} is {2}."),
        ("Add {0} and {1}.", "The sum of {0} and {1} is {2}."),
        ("Calculate {0} + {1}.", "{0} + {1} = {2}"),
    ])  # fmt: skip
    return question.format(a, b), "", answer.format(a, b, a + b)


@family
def subtract(rng):
    b, a = sorted((rng.randint(1, 99), rng.randint(1, 99)))
    question, answer = wording(rng, [
        ("What is {0} minus {1}?", "{0} minus {1} is {2}."),
        ("Subtract {1} from {0}.", "The difference of {0} and {1} is {2}."),
        ("Calculate {0} - {1}.", "{0} - {1} = {2}"),
    ])  # fmt: skip
    return question.format(a, b), "", answer.format(a, b, a - b)


@family
def compare(rng):
    a, b = rng.sample(range(1, 100), 2)
    large, small = max(a, b), min(a, b)
    question, answer = wording(rng, [
        ("Which number is larger, {0} or {1}?", "{2} is larger than {3}."),
        ("Which number is smaller, {0} or {1}?", "{3} is smaller than {2}."),
        ("Compare {0} and {1}.", "{2} is greater than {3}."),
    ])  # fmt: skip
    return question.format(a, b), "", answer.format(a, b, large, small)


@family
def even_or_odd(rng):
    number = rng.randint(1, 999)
    even = number % 2 == 0
    if rng.random() < 0.5:
        answer = f"Yes, {number} is an even number." if even else f"No, {number} is an odd number."
        return f"Is {number} an even number?", "", answer
    return f"Is the number {number} even or odd?", "", f"The number {number} is {'even' if even else 'odd'}."


@family
def sequence(rng):
    step = rng.choice([1, 2, 3, 4, 5, 10])
    start = rng.randint(1, 30)
    length = rng.randint(3, 5)
    terms = [start + step * i for i in range(length + 2)]
    question, answer = wording(rng, [
        ("Continue the sequence: {0}", "The next two numbers are {1} and {2}."),
        ("What comes next? {0}", "Each number is {3} more than the one before, so {1} comes next."),
    ])  # fmt: skip
    shown = join_words(map(str, terms[:length]))
    return question.format(shown), "", answer.format(shown, terms[length], terms[length + 1], step)


@family
def sort_numbers(rng):
    numbers = rng.sample(range(1, 100), rng.randint(3, 5))
    up = rng.random() < 0.5
    question = rng.choice([
        "Sort these numbers from {}.", "Put the numbers in order from {}.", "Arrange the following numbers from {}.",
    ])  # fmt: skip
    result = sorted(numbers, reverse=not up)
    order = "smallest to largest" if up else "largest to smallest"
    return question.format(order), join_words(map(str, numbers)), join_words(map(str, result))


# ---- words and lists --------------------------------------------------------------------------------------------


@family
def sort_words(rng):
    words = rng.sample(lex.WORDS, rng.randint(3, 5))
    question = rng.choice([
        "Sort these words alphabetically.", "Put the following words in alphabetical order.",
        "Arrange the words from A to Z.",
    ])  # fmt: skip
    return question, join_words(words), join_words(sorted(words))


@family
def reverse_list(rng):
    words = rng.sample(lex.WORDS, rng.randint(3, 7))
    question, answer = wording(rng, [
        ("Reverse the order of these words.", "{0}"),
        ("Write the list backwards, the last word first.", "{0}"),
        ("Say the words in reverse order.", "In reverse order the words are {0}."),
    ])  # fmt: skip
    return question, join_words(words), answer.format(join_words(words[::-1]))


@family
def pick_word(rng):
    words = rng.sample(lex.WORDS, rng.randint(4, 7))
    names = ["first", "second", "third", "fourth", "last"]
    place = rng.randrange(len(names))
    word = words[-1] if names[place] == "last" else words[place]
    question, answer = wording(rng, [
        ("What is the {0} word in the list?", "The {0} word in the list is {1}."),
        ("Give me the {0} word.", "{1}"),
        ("Which word is {0}?", "The word {1} is {0}."),
    ])  # fmt: skip
    return question.format(names[place]), join_words(words), answer.format(names[place], word)


@family
def count_words(rng):
    words = rng.sample(lex.WORDS, rng.randint(2, 8))
    question = rng.choice(["How many words are in the list?", "Count the words.", "Count the words in this list."])
    return question, join_words(words), f"There are {len(words)} words in the list."


@family
def spell(rng):
    word = rng.choice(lex.WORDS)
    question, answer = wording(rng, [
        ("Spell the word {0}.", "The word {0} is spelled {1}."),
        ("How is {0} spelled?", "It is spelled {1}."),
        ("What is the first letter of {0}?", "The first letter of {0} is {2}."),
        ("How many letters does the word {0} have?", "The word {0} has {3} letters."),
        ("Reverse the word {0}, letter by letter.", "{0} backwards is {4}."),
    ])  # fmt: skip
    letters, backwards = "-".join(word), "-".join(word[::-1])
    return question.format(word), "", answer.format(word, letters, word[0].upper(), len(word), backwards)


@family
def upper_case(rng):
    words = rng.sample(lex.WORDS, rng.randint(1, 4))
    question = rng.choice(["Write this in capital letters.", "Convert the text to upper case.", "Make it upper case."])
    return question, " ".join(words), " ".join(words).upper()


@family
def odd_one_out(rng):
    category, other = rng.sample(list(lex.CATEGORIES), 2)
    odd = rng.choice(lex.CATEGORIES[other])
    words = [*rng.sample(lex.CATEGORIES[category], 3), odd]
    rng.shuffle(words)
    article = "an" if other[0] in "aeiou" else "a"
    article_of = "an" if category[0] in "aeiou" else "a"
    question = rng.choice(["Which word does not belong to the others?", "Find the odd one out."])
    answer = f"The word {odd} does not belong, because it is {article} {other} and not {article_of} {category}."
    return question, join_words(words), answer


@family
def category(rng):
    word = rng.choice(list(lex.CATEGORY_OF))
    asked = rng.choice([lex.CATEGORY_OF[word], rng.choice(list(lex.CATEGORIES))])
    true = lex.CATEGORY_OF[word]
    article = {name: "an" if name[0] in "aeiou" else "a" for name in lex.CATEGORIES}
    if rng.random() < 0.3:
        return f"What kind of thing is this: {word}?", "", f"The word {word} names {article[true]} {true}."
    answer = f"Yes, {word} is {article[true]} {true}." if asked == true else (
        f"No, {word} is not {article[asked]} {asked}, it is {article[true]} {true}."
    )
    question = rng.choice(["Is {0} {1} {2}?", "Does the word {0} name {1} {2}?", "Yes or no: is {0} {1} {2}?"])
    return question.format(word, article[asked], asked), "", answer


# ---- sentences --------------------------------------------------------------------------------------------------


@family
def past_tense(rng):
    name, (present, past) = rng.choice(lex.NAMES), rng.choice(list(lex.VERBS.items()))
    place = rng.choice(["", *lex.PLACES])
    tail = f" {place}." if place else "."
    if rng.random() < 0.25:
        return "Rewrite the sentence in the present tense.", f"{name} {past}{tail}", f"{name} {present}{tail}"
    question = rng.choice([
        "Rewrite the sentence in the past tense.", "Put this sentence into the past.", "Change the verb to past tense.",
    ])  # fmt: skip
    return question, f"{name} {present}{tail}", f"{name} {past}{tail}"


@family
def sentiment(rng):
    good = rng.random() < 0.5
    thing, word = rng.choice(lex.REVIEWED), rng.choice(lex.GOOD_WORDS if good else lex.BAD_WORDS)
    fillers = rng.sample(lex.REVIEW_FILLERS, rng.randint(0, 5))
    sentences = [*fillers, rng.choice([f"The {thing} was {word}.", f"I must say that the {thing} was {word}."])]
    rng.shuffle(sentences)
    label = "positive" if good else "negative"
    question, answer = wording(rng, [
        ("Is this review positive or negative?", "The review is {0}, because the writer calls the {1} {2}."),
        ("Classify the sentiment of the text and say why.", "The sentiment is {0}: the {1} was {2}."),
        ("Give the sentiment of this review in one word.", "{0}"),
    ])  # fmt: skip
    return question, " ".join(sentences), answer.format(label, thing, word)


@family
def thank_you(rng):
    name, gift = rng.choice(lex.NAMES), rng.choice(list(lex.GIFTS))
    question = rng.choice([
        "Write a short note to thank {0} for the {1}.", "Write a thank-you letter to {0}, who gave me a {1}.",
        "Thank {0} for the {1} in two sentences.", "Help me to thank {0} for a {1}.",
    ])  # fmt: skip
    answer = f"Dear {name}, thank you very much for the {gift}. It was kind of you, and {lex.GIFTS[gift]}."
    return question.format(name, gift), "", answer


@family
def story(rng):
    name, friend = rng.sample(lex.NAMES, 2)
    city, hobby, word = rng.choice(lex.CITIES), rng.choice(lex.HOBBIES), rng.choice(lex.GOOD_WORDS)
    question = rng.choice([
        "Write a short story about {0} and {1} in {2}. {0} likes {3}.",
        "Tell me a story in which {0}, who likes {3}, meets {1} in {2}.",
    ])  # fmt: skip
    answer = (
        f"{name} lived in {city} and liked {hobby} more than anything else. One day {friend} came to visit, and soon "
        f"both of them liked {hobby}. It was a {word} day, and they told the story for years."
    )
    return question.format(name, friend, city, hobby) + f" The day is {word}.", "", answer


# ---- reading: the answer stands in the input --------------------------------------------------------------------


def address(rng, name):
    host = rng.choice(lex.WORDS)
    number = rng.choice(["", str(rng.randint(1, 99))])
    return f"{name.lower()}{number}@{host}.{rng.choice(['com', 'org', 'net'])}"


@family
def find_email(rng):
    people = rng.sample(lex.NAMES, rng.randint(1, 16))
    emails = [address(rng, name) for name in people]
    sentences = [
        rng.choice(["Write to {0} at {1}.", "{0} reads mail at {1}.", "The address of {0} is {1}."]).format(*pair)
        for pair in zip(people, emails)
    ]
    at = rng.randrange(len(people))
    question, answer = wording(rng, [
        ("What is the email address of {0}?", "The email address of {0} is {1}."),
        ("Find the email address of {0} in the text.", "{1}"),
    ])  # fmt: skip
    return question.format(people[at]), " ".join(sentences), answer.format(people[at], emails[at])


@family
def price_list(rng):
    goods = rng.sample(lex.GOODS, rng.randint(2, len(lex.GOODS)))
    prices = [rng.randint(2, 99) for _ in goods]
    lines = [f"{item}: {price} euros" for item, price in zip(goods, prices)]
    at = rng.randrange(len(goods))
    question, answer = wording(rng, [
        ("How much are the {0} in this price list?", "The {0} cost {1} euros."),
        ("Look up the price of the {0}.", "According to the list, the price of the {0} is {1} euros."),
    ])  # fmt: skip
    return question.format(goods[at]), "\n".join(lines), answer.format(goods[at], prices[at])


@family
def profiles(rng):
    people = rng.sample(lex.NAMES, rng.randint(1, 20))
    facts = [(name, rng.choice(lex.JOBS), rng.choice(lex.CITIES), rng.choice(lex.HOBBIES)) for name in people]
    sentences = [
        rng.choice([
            "{0} is a {1} from {2} and likes {3}.", "{0} lives in {2}, works as a {1} and likes {3}.",
        ]).format(*fact)  # fmt: skip
        for fact in facts
    ]
    question, answer = wording(rng, [
        ("Where does {0} live?", "{0} lives in {2}."),
        ("What is the job of {0}?", "{0} is a {1}."),
        ("What does {0} like?", "{0} likes {3}."),
        ("Tell me about {0}.", "{0} is a {1} who lives in {2} and likes {3}."),
    ])  # fmt: skip
    fact = rng.choice(facts)
    return question.format(*fact), " ".join(sentences), answer.format(*fact)


@family
def shopping(rng):
    trips = []
    for name in rng.sample(lex.NAMES, rng.randint(1, 9)):
        items = [(rng.randint(2, 30), item) for item in rng.sample(lex.GOODS, rng.randint(1, 4))]
        trips.append((name, rng.choice(lex.DAYS), rng.choice(lex.CITIES), items))
    texts, at = [], rng.randrange(len(trips))
    for name, day, city, items in trips:
        bought = " and ".join(f"{count} {item}" for count, item in items)
        texts.append(f"On {day} {name} went to a shop in {city} and bought {bought}.")
    name, day, city, items = trips[at]
    count, item = rng.choice(items)
    bought = " and ".join(f"{count} {item}" for count, item in items)
    question, answer = wording(rng, [
        ("How many {0} did {1} buy?", "{1} bought {2} {0}."),
        ("On which day did {1} go to the shop?", "{1} went to the shop on {3}."),
        ("In which city did {1} go shopping?", "{1} went shopping in {4}."),
        ("What did {1} buy?", "{1} bought {5}."),
    ])  # fmt: skip
    return question.format(item, name), " ".join(texts), answer.format(item, name, count, day, city, bought)


@family
def timetable(rng):
    cities = rng.sample(lex.CITIES, rng.randint(1, 18))
    trains = [(city, f"{rng.randint(5, 23):02d}:{rng.randrange(0, 60, 5):02d}", rng.randint(1, 9)) for city in cities]
    lines = ["The train to {0} leaves at {1} from platform {2}.".format(*train) for train in trains]
    question, answer = wording(rng, [
        ("When does the train to {0} leave?", "The train to {0} leaves at {1}."),
        ("From which platform does the train to {0} leave?", "It leaves from platform {2}."),
        ("I want to go to {0}. Which train do I take?", "Take the train at {1} from platform {2} to {0}."),
    ])  # fmt: skip
    train = rng.choice(trains)
    return question.format(*train), "\n".join(lines), answer.format(*train)


@family
def summarise(rng):
    day, next_day = rng.sample(lex.DAYS, 2)
    city, decision = rng.choice(lex.CITIES), rng.choice(lex.DECISIONS)
    fillers = rng.sample(lex.NOTE_FILLERS, rng.randint(0, len(lex.NOTE_FILLERS)))
    cut = rng.randint(0, len(fillers))
    text = [f"On {day} the team met in {city}.", *fillers[:cut], f"After some time they decided to {decision}."]
    text += [*fillers[cut:], f"The next meeting is on {next_day}."]
    question, answer = wording(rng, [
        ("Summarise the note in one sentence.",
         "On {0} in {1} the team decided to {2}, and it meets again on {3}."),
        ("What was decided in the meeting?", "The team decided to {2}."),
        ("Write a short summary of the text.",
         "The team met in {1} on {0} and decided to {2}. The next meeting is on {3}."),
    ])  # fmt: skip
    return question, " ".join(text), answer.format(day, city, decision, next_day)


# ---- samples and sets -------------------------------------------------------------------------------------------

MANNERS = ["{}", "{}", "{}", "Please help me. {}", "Here is a question. {}"]


def sample(rng, name):
    """One sample of a family: {instruction, input, output, family}."""
    instruction, text, output = FAMILIES[name](rng)
    return {"instruction": rng.choice(MANNERS).format(instruction), "input": text, "output": output, "family": name}


def key(item):
    return item["instruction"], item["input"]


def evaluation_set(count=EVAL_SAMPLES):
    """`count` samples with distinct (instruction, input), the families in turn."""
    rng = random.Random(EVAL_SEED)
    names, seen, items = list(FAMILIES), set(), []
    while len(items) < count:
        item = sample(rng, names[len(items) % len(names)])
        if key(item) not in seen:
            seen.add(key(item))
            items.append(item)
    return items


def training_shard(shard, count=SHARD):
    """`count` training samples of one seed; small families repeat theirs, none is an evaluation sample."""
    held_out = {key(item) for item in evaluation_set()}
    rng = random.Random(TRAIN_SEED * 1_000_003 + shard)
    names, items = list(FAMILIES), []
    while len(items) < count:
        item = sample(rng, rng.choice(names))
        if key(item) not in held_out:
            items.append(item)
    return items


def training_set(count):
    """The first `count` training samples; the same ones on any number of processors."""
    shards = -(-count // SHARD)
    with ProcessPoolExecutor() as pool:
        items = [item for shard in pool.map(training_shard, range(shards)) for item in shard]
    return items[:count]


def write_json(path, items):
    """A JSON array with one sample a line, so that a difference reads well."""
    rows = ",\n".join(json.dumps(item, ensure_ascii=False) for item in items)
    path.write_text(f"[\n{rows}\n]\n", encoding="utf-8")
    print(f"{path}: {len(items)} samples, {path.stat().st_size} bytes")


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", type=Path, default=DATA, help="folder of the two committed files")
    parser.add_argument("--train", type=int, default=0, help="size of the whole training set to write")
    parser.add_argument("--output", type=Path, default=Path("train.jsonl"), help="where the whole training set goes")
    arguments = parser.parse_args()
    arguments.data.mkdir(exist_ok=True)
    write_json(arguments.data / "instructions-eval.json", evaluation_set())
    write_json(arguments.data / "instructions-train.json", training_shard(0)[:TRAIN_SAMPLE])
    if arguments.train:
        with arguments.output.open("w", encoding="utf-8") as file:
            for item in training_set(arguments.train):
                file.write(json.dumps(item, ensure_ascii=False) + "\n")
        print(f"{arguments.output}: {arguments.train} samples")


if __name__ == "__main__":
    main()
