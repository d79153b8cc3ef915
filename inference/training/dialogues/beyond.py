"""Arithmetic out of reach: large terms, negative results, and all but sums, differences and products of two numbers."""

from __future__ import annotations

from random import Random
from typing import Final

from inference.training.dialogues.grammar import write
from inference.training.dialogues.sums import BEYOND, BEYOND_KO, FLAG, LARGEST, ask

# Letters in braces are numbers.
_ASKS: Final = (
    "[What is|What's|How much is|Calculate|Compute] {a} [divided by|/|over|÷|: |split by] {b}?", "{a} [/|÷] {b}[ =|]?",
    "{a}/{b}", "[Divide|Split|Can you divide|Please divide] {a} by {b}.",
    "How [often|many times] does {b} [go|fit] into {a}?",
    "[What is|What's|Find|Give me|Tell me|Calculate|Compute] the [square |cube |][root|square|cube|factorial|"
    "logarithm] of {a}.",
    "[What is|Calculate|How much is] [sqrt|log|sin|cos|exp|ln]({a})?",
    "[Square|Cube|Halve|Double|Triple] {a}[.| please.]",
    "[What is|What's|How much is|Calculate|] {c}[^|**| ^ | to the power of | to the power ]{d}[?|]",
    "[What is|What's|How much is|Calculate] {c} [squared|cubed|to the third power|to the fifth|to the ninth power]?",
    "[What is|How much is|Calculate|Find] {d} [%|percent] of {a}?",
    "How much is [ten|twenty|five|thirty|fifty] percent of {a}?",
    "[What is|How much is] [half|a third|a quarter|two thirds|double|twice] of {a}?", "{a} [mod|modulo|%] {b}",
    "[Solve|Find x:|Solve for y:|Work out|What is x if|Solve the equation] {d}[x|y] [+|-] {d} = {a}[.|?|]",
    "[Solve|Factor|Simplify|Integrate|Differentiate|Expand] [x^2 |{d}x^2 |x² ][+|-] {d}x [+|-] {d}[ = 0|].",
    "[What is|Find|Compute|Calculate] the [derivative|integral|limit|slope|root] of [{d}x|sin x|x^{d}|cos x|e^x|x "
    "cubed|ln x]?",
    "{d} [+|-|*] {d} [+|-|*] {d}[ =|]?",
    "[What is|Calculate|How much is] {c} [plus|minus|times] {d} [plus|minus|times] {d}?",
    "[What is|Calculate] ({d} [+|-] {d}) * {d}?",
    "[What is|Calculate|How much is] {d}.{d} [+|-|*|/|times|plus] {d}.{d}?",
    "[What is|Calculate|How much is] {d}/{d} [+|-|*] {d}/{d}?", "[Add|Sum up|Add up] {d}, {d}, {c} and {a}.",
    "How many [minutes|hours|seconds|days|weeks] [are in|are there in|has|does it take for] [a day|a year|{c} hours|"
    "two months|"
    "a month|{d} weeks|a century|{d} days]?",
    "[Convert|How much is|What is] {a} [km|miles|pounds|kg|dollars|euros|feet|inches|cm|Celsius|Fahrenheit|won] "
    "[to|in] [miles|km|grams|won|meters|Kelvin|dollars]?",
    "[What is|Find|Calculate] the [average|mean|median|maximum|product|sum] of {c}, {d} and {a}?",
    "[What is|Calculate|Find] the [area|volume|perimeter] of a [circle|cube|square|sphere|box] [of|with side|with "
    "radius] {d}?",
    "Is {a} [a prime|prime|a prime number|divisible by {d}|odd|even]?",
    "[What is|Write] {a} in [binary|hex|Roman numerals]?",
    "[If I have|Tom has|We had|A shop has] {c} [apples|dollars|coins|cars] and [lose|give away|buy|sell] {c}, how "
    "many [are left|"
    "do I have|remain]?",
)  # fmt: skip
_ASKS_KO: Final = (
    "{a} [나누기|/|÷] {b}[{은}|{은} 얼마야|{은} 얼마예요|{은} 뭐야| 계산해줘| 해줘|{은} 몇이야|{은} 얼마인가요]?",
    "{a}{을} {b}{으로} 나누면[?| 얼마야?| 몫은?| 뭐야?| 얼마예요?]",
    "{a}{을} {b}{으로} 나눈 [값은|나머지는|몫은|결과는] [뭐야|얼마야|얼마인가요]?",
    "{a}의 [제곱근|세제곱근|제곱|세제곱|팩토리얼|로그|절반|두 배|세 배|약수|배수][은|는|이|] [뭐야|얼마야|얼마인가요|"
    "몇이야|구해 주세요|계산해줘|알려줘|]",
    "[루트|로그|사인|코사인] {a}[{은}|의 값은] [뭐야|얼마야|얼마인가요|구해줘|]",
    "{a}{을} [제곱|세제곱|반올림|인수분해]하면[?| 얼마야?| 뭐야?]",
    "{c}의 {d}[제곱|승|거듭제곱][은|은 얼마야|은 뭐야|을 구해줘|을 계산해 주세요| 계산|은 몇이야]?",
    "{a}의 {d}[퍼센트|%|프로][는|는 얼마야|는 뭐야|를 구해줘|를 계산해 주세요| 얼마| 알려줘]?",
    "{a}의 [반|삼분의 일|절반|이분의 일|열 배|오십 퍼센트]{은} [얼마야|뭐야|얼마예요|몇이야|]?",
    "{d}[x|y] [+|-] {d} = {a}[를 풀어줘| 풀어줘|의 해는?| 방정식을 풀어 주세요|이면 [x|y]는 뭐야?| 답이 뭐야?|의 "
    "답을 구해줘]",
    "[방정식|이차방정식|연립방정식|부등식] [풀어줘|푸는 법 알려줘|{d}x = {a} 풀어줘|x² - {d} = 0 풀어줘]",
    "[x^{d}|{d}x|sin x|cos x|e^x|x 세제곱|ln x|{d}x^2][{을}|의] [미분해줘|적분해줘|미분하면?|적분하면 얼마야?|"
    "도함수는?|미분값은?|적분 결과 알려줘]",
    "{d} [+|-|*|더하기|빼기|곱하기] {d} [+|-|*|더하기|빼기|곱하기] {d}{은} [얼마야|뭐야|얼마인가요|]?",
    "({d} [+|-] {d}) * {d} [계산해줘|는 얼마야?|는?]",
    "{d}.{d} [더하기|곱하기|빼기|+|*] {d}.{d}{은} [얼마야|뭐야|얼마예요|]?",
    "{d}분의 {d} [더하기|곱하기|빼기] {d}분의 {d}{은} [얼마야|뭐야|]?",
    "{d}, {d}, {c}{와} {a}[의 평균은?|의 합은?|{을} 다 더해줘|의 곱은 얼마야?]",
    "[하루|한 시간|일 년|한 달|{c}시간|이틀|한 세기|{d}주]{은} [몇 분|몇 시간|몇 초|며칠|몇 주][이야|인가요|야|"
    "이에요|지]?",
    "{a}[킬로미터|마일|파운드|달러|유로|피트|인치|센티미터|킬로그램|평|원]{은} 몇 [미터|킬로미터|그램|원|센티|"
    "제곱미터|달러|마일][야|인가요|이야|예요|지]?",
    "[반지름|한 변|지름|높이]{이} {d}인 [원|정사각형|구|정육면체|삼각형|원뿔]의 [넓이|부피|둘레|면적]{은} [얼마야|"
    "뭐야|구해줘|얼마인가요|]?",
    "{a}{은} [소수야|짝수야|홀수인가요|소수인가요|{d}의 배수야|{d}{으로} 나누어 떨어져]?",
    "{a}{을} [이진수|십육진수|로마 숫자]로 [바꿔줘|바꾸면?|변환해줘]",
    "[사과|사탕|동전|돈|연필]{이} {c}개 있는데 {c}개를 [먹으면|주면|잃으면|더 사면|팔면] [몇 개야|몇 개 남아|얼마나 "
    "있어]?",
)  # fmt: skip


def beyond(rng: Random, *, korean: bool) -> tuple[str, str]:
    """Give arithmetic that is out of reach, and what is said to it."""
    if rng.random() < 0.5:
        question = ask(rng, *_terms(rng), korean=korean)
    else:
        question = write(rng, _numbered(rng, rng.choice(_ASKS_KO if korean else _ASKS)))
    if rng.random() < 0.05:
        question += f" {FLAG}"
    return question, BEYOND_KO if korean else BEYOND


def _terms(rng: Random) -> tuple[int, str, int]:
    """Give terms whose result is neither known nor worked out on request."""
    sign = rng.choice("+-***")
    long = rng.choice((100, 1000, 10000, 100000))
    if sign == "*":  # a factor of two digits or more
        pair = [rng.randint(10, rng.choice((19, 99, 99, 999))), rng.randint(2, rng.choice((9, 9, 99, 99, 999)))]
    elif sign == "+":  # a term of three digits or more
        pair = [rng.randint(100, 10 * long), rng.randint(1, rng.choice((9, 99, 10 * long)))]
    elif rng.random() < 0.3:  # a negative result
        low = rng.randint(0, LARGEST - 1)
        return low, sign, rng.randint(low + 1, LARGEST)
    else:
        first = rng.randint(LARGEST + 1, rng.choice((99, 99, long)))
        return first, sign, rng.randint(1, first)
    rng.shuffle(pair)
    return pair[0], sign, pair[1]


def _numbered(rng: Random, pattern: str) -> str:
    """Put numbers for the letters: `{a}` any, `{b}` and `{d}` of one or two digits, `{c}` of two."""
    for letter, most in (("a", (99, 999, 9999)), ("b", (9, 9, 25)), ("c", (20, 99)), ("d", (9, 9, 9, 20))):
        while f"{{{letter}}}" in pattern:
            pattern = pattern.replace(f"{{{letter}}}", str(rng.randint(2, rng.choice(most))), 1)
    return pattern
