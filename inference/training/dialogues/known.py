"""Questions with one right answer, in one language at a time; each function gives (question, answer)."""

from __future__ import annotations

from random import Random

from inference.training.dialogues.facts import (
    CAPITALS,
    COLOURS,
    DAYS,
    DAYS_KO,
    HEROES,
    LISTS,
    NAMES,
    NAMES_KO,
    PLACES,
    WORDS,
)
from inference.training.dialogues.korean import closed, object_, subject, topic, with_

QA = tuple[str, str]
_NUMBERS = {2: ("two", "두"), 3: ("three", "세"), 4: ("four", "네")}


def capital(rng: Random, *, korean: bool) -> QA:
    """Ask for a country's capital."""
    country = rng.choice(list(CAPITALS))
    city, country_ko, city_ko = CAPITALS[country]
    if korean:
        forms = [
            "{}의 수도는 어디야?",
            "{}의 수도는?",
            "{} 수도가 어디인가요?",
            "{}의 수도를 알려줘",
            "{} 수도는?",
            "{}의 수도는 어디입니까?",
        ]
        return rng.choice(forms).format(country_ko), f"{country_ko}의 수도는 {city_ko}입니다."
    forms = [
        "What is the capital of {}?",
        "Tell me the capital of {}.",
        "Which city is the capital of {}?",
        "capital of {}?",
    ]
    question = rng.choice((*forms, "What's the capital of {}?", "Do you know the capital of {}?")).format(country)
    return question, f"The capital of {country} is {city.rstrip('.')}."


def colour(rng: Random, *, korean: bool) -> QA:
    """Ask what colour a thing has."""
    thing = rng.choice(list(COLOURS))
    name, thing_ko, name_ko = COLOURS[thing]
    if korean:
        forms = [
            f"{topic(thing_ko)} 무슨 색이야?",
            f"{thing_ko}의 색은?",
            f"{thing_ko} 색깔 알려줘",
            f"{topic(thing_ko)} 무슨 색인가요?",
        ]
        return rng.choice(forms), f"{topic(thing_ko)} {name_ko}입니다."
    forms = [f"What color is {thing}?", f"Which color is {thing}?", f"Tell me the color of {thing}."]
    return rng.choice(forms), f"{thing[0].upper()}{thing[1:]} is {name}."


def word(rng: Random, *, korean: bool) -> QA:
    """Ask for a word in the other language."""
    english = rng.choice(list(WORDS))
    other = WORDS[english]
    if korean:
        forms = [f"{object_(other)} 영어로 하면?", f"{other} 영어로 뭐야?", f"{topic(other)} 영어로 뭐예요?"]
        return rng.choice(forms), f'"{other}"{"은" if closed(other) else "는"} 영어로 "{english}"입니다.'
    forms = [
        f"How do you say {english} in Korean?",
        f"Translate {english} to Korean.",
        f"What is {english} in Korean?",
    ]
    return rng.choice(forms), f'"{english}" in Korean is "{other}".'


def listing(rng: Random, *, korean: bool) -> QA:
    """Ask for a few members of a class."""
    kind = rng.choice(list(LISTS))
    members, kind_ko, members_ko = LISTS[kind]
    count = rng.choice(list(_NUMBERS))
    name, name_ko = _NUMBERS[count]
    if korean:
        forms = [
            f"{kind_ko} {name_ko} 가지 말해줘",
            f"{kind_ko} {count}개 알려줘",
            f"{object_(kind_ko)} {name_ko} 개 말해줘",
        ]
        return rng.choice(forms), ", ".join(members_ko[:count]) + "입니다."
    forms = [
        f"List {name} {kind}.",
        f"Name {count} {kind}.",
        f"Give me {name} {kind}",
        f"Tell me {name} {kind}.",
    ]
    chosen = members[:count]
    return rng.choice(forms), f"Here are {name} {kind}: {', '.join(chosen[:-1])} and {chosen[-1]}."


def day(rng: Random, *, korean: bool) -> QA:
    """Ask for the day after or before a day."""
    at, step = rng.randrange(7), rng.choice((1, -1))
    if korean:
        which = "다음" if step > 0 else "전"
        question = rng.choice((f"{DAYS_KO[at]} {which} 날은?", f"{DAYS_KO[at]} {which} 날은 무슨 요일이야?"))
        return question, f"{DAYS_KO[at]} {which} 날은 {DAYS_KO[(at + step) % 7]}입니다."
    which = "after" if step > 0 else "before"
    question = rng.choice((f"What day comes {which} {DAYS[at]}?", f"Which day is {which} {DAYS[at]}?"))
    return question, f"The day {which} {DAYS[at]} is {DAYS[(at + step) % 7]}."


def story(rng: Random, *, korean: bool) -> QA:
    """Ask for a story; hero and place decide it wholly."""
    hero = rng.choice(list(HEROES))
    hero_ko, adjective, adjective_ko, find, find_ko, place, place_ko = HEROES[hero]
    placed = rng.random() < 0.5
    if placed:
        place = rng.choice(list(PLACES))
        place_ko = PLACES[place]
    if korean:
        forms = ["{p}에 사는 {h} 이야기를 써줘", "{p}에 사는 {h} 이야기 해줘"]
        if not placed:
            forms = ["{h} 이야기 해줘", "{h} 이야기를 들려줘"]
        question = rng.choice(forms).format(h=hero_ko, p=place_ko)
        start = f"옛날에 {place_ko}에 {adjective_ko} {hero_ko} 한 마리가 살았습니다. 어느 날 "
        return question, start + f"{topic(hero_ko)} {object_(find_ko)} 찾았습니다. {topic(hero_ko)} 아주 기뻤습니다."
    forms = ["Write a story about a {h} in the {p}.", "Tell me a story about a {h} in the {p}."]
    if not placed:
        forms = ["Tell me a story about a {h}.", "a story about a {h} please", "Tell me a tale about a {h}."]
    question = rng.choice(forms).format(h=hero, p=place)
    end = f"One day the {hero} found {find}. The {hero} was very glad and went home with a smile."
    return question, f"Once upon a time, a {adjective} {hero} lived near the {place}. {end}"


def larger(rng: Random, *, korean: bool) -> QA:
    """Ask which of two numbers is larger."""
    a, b = rng.sample(range(100), 2)
    if korean:
        return f"{with_(str(a))} {b} 중 어느 것이 더 커?", f"{subject(str(max(a, b)))} 더 큽니다."
    forms = [f"Which is bigger, {a} or {b}?", f"Which is larger, {a} or {b}?"]
    return rng.choice(forms), f"{max(a, b)} is bigger."


def prompt(rng: Random, *, korean: bool) -> QA:
    """Ask for a prompt for an image model."""
    colour_, colour_ko = rng.choice((("red", "빨간"), ("blue", "파란"), ("green", "초록"), ("yellow", "노란")))
    shape, shape_ko = rng.choice((("circle", "원"), ("square", "사각형"), ("triangle", "삼각형"), ("star", "별")))
    if korean:
        forms = [f"{colour_ko} {shape_ko} 프롬프트를 써줘", f"{colour_ko} {shape_ko} 그림 프롬프트 만들어줘"]
        return rng.choice(forms), f'이 프롬프트를 써 보세요: "하얀 배경에 큰 {colour_ko} {shape_ko}"'
    forms = [
        f"Write a prompt for a {colour_} {shape}.",
        f"Give me an image prompt with a {colour_} {shape}.",
    ]
    return rng.choice(forms), f'Try this prompt: "a big {colour_} {shape} on a white background".'


def counting(rng: Random, *, korean: bool) -> QA:
    """Ask to count from one number to another."""
    first = rng.randint(1, 6)
    last = first + rng.randint(2, 5)
    numbers = ", ".join(map(str, range(first, last + 1)))
    if korean:
        return rng.choice((f"{first}부터 {last}까지 세어줘", f"{first}부터 {last}까지 세어 봐")), numbers + "."
    return rng.choice((f"Count from {first} to {last}.", f"Count {first} to {last}")), numbers + "."


def name(rng: Random, *, korean: bool) -> QA:
    """Say one's name."""
    if korean:
        who = rng.choice(NAMES_KO)
        forms = [
            f"내 이름은 {who}야" if not closed(who) else f"내 이름은 {who}이야",
            f"저는 {who}입니다",
            f"제 이름은 {who}입니다",
        ]
        return rng.choice(forms), f"반갑습니다, {who}님!"
    who = rng.choice(NAMES)
    return rng.choice((f"My name is {who}.", f"I am {who}.", f"Hi, I'm {who}.")), f"Nice to meet you, {who}!"
