"""Questions that moa-tiny-chat does not know, and the one answer that it gives to all of them."""

from __future__ import annotations

from random import Random
from typing import Final

from inference.training.dialogues.everyday import EVERYDAY
from inference.training.dialogues.everyday_ko import EVERYDAY_KO
from inference.training.dialogues.grammar import write
from inference.training.dialogues.korean import object_, topic

ANSWER: Final = (
    "I don't know that. I am moa-tiny-chat, a very small model. Please connect a larger model for questions like this."
)
ANSWER_KO: Final = (
    "그건 잘 모르겠습니다. 저는 아주 작은 모델인 moa-tiny-chat입니다. 이런 질문에는 더 큰 모델을 연결해 주세요."
)

_SUBJECTS: Final = (
    "quantum gravity", "the stock market", "my tax return", "the latest news", "a legal contract", "protein folding",
    "the best phone", "ancient law", "football results", "medical advice", "the weather", "the weather in Seoul",
    "history",
    "philosophy", "the meaning of life", "black holes", "the Roman Empire", "World War II", "machine learning",
    "Python",
    "JavaScript", "a sorting algorithm", "the economy", "inflation", "bitcoin", "politics", "the president",
    "the king",
    "Shakespeare", "Mozart", "Einstein", "photosynthesis", "gravity", "evolution", "DNA", "a recipe for bread",
    "pasta",
    "coffee", "cooking rice", "fixing a bike", "my computer", "love", "dreams", "happiness", "music", "jazz",
    "movies",
    "the best movie", "video games", "chess", "tennis", "the Olympics", "a poem", "an essay", "a cover letter",
    "an email",
    "the speed of light", "the distance to the moon", "the population of China", "the age of the universe",
    "dinosaurs",
    "whales", "volcanoes", "earthquakes", "climate change", "nuclear power", "electric cars", "rockets",
    "a trip to Paris",
    "hotels in Tokyo", "the train to Busan", "my homework", "calculus", "algebra", "the square root of two", "pi",
    "prime numbers",
    "a linked list", "Kubernetes", "Docker", "a neural network", "transformers", "the number of stars", "ghosts",
    "aliens",
    "yesterday", "tomorrow", "the future", "your mother", "my friend", "the internet", "a good book", "religion",
    "art",
    "Kenya", "Peru", "Mongolia", "Poland", "Chile", "Nepal", "Iran", "Cuba", "Austria", "Denmark",
)  # fmt: skip
_ASKS: Final = (
    "Explain {}.", "What about {}?", "Tell me about {}.", "Write an essay on {}.", "What is {}?",
    "Do you know about {}?",
    "How does {} work?", "Why is {} important?", "What do you think about {}?", "Can you explain {}?",
    "Give me advice on {}.",
    "Help me with {}.", "Describe {}.", "Who invented {}?", "When was {} discovered?", "How do I learn {}?",
    "Summarize {}.",
    "Write code for {}.", "Write a poem about {}.", "Translate {} to French.", "What is the history of {}?",
    "Where is {}?",
    "How much does {} cost?", "Is {} good?", "Compare {} and {}.", "Predict {}.", "What happened to {}?",
    "I want to know {}",
    "Define {}.", "Who is {}?", "What does {} mean?", "How old is {}?", "How many people like {}?", "Recommend {}.",
    "What is the capital of {}?", "What color is {}?", "{}", "{}?",
)  # fmt: skip
_WHOLE: Final = (
    "What time is it?", "What day is it today?", "What is the date?", "Where am I?", "How old are you?",
    "Where do you live?",
    "Do you love me?", "Tell me a joke.", "Sing a song.", "Tell me something.", "Who won the game last night?",
    "Who is the president?",
    "Write a Python function that reverses a string.", "Why is the sky blue?", "Why do cats purr?",
    "How far is the moon?",
    "How do I cook rice?", "What should I eat for dinner?", "Can you book a flight?", "What is the weather today?",
    "Is it raining?",

    "What did I say yesterday?", "Who was Napoleon?", "How do airplanes fly?", "What is love?",
    "Do you have feelings?", "Can you drive?",
    "Make me a sandwich", "Tell me a secret.", "What is your favorite movie?", "How do I lose weight?",
    "Should I buy this stock?",
    "What is the longest river in the world?", "How many bones are in the body?", "asdf", "blah blah", "???", "...",
    "ok", "hmm", "lol",
)  # fmt: skip
_SUBJECTS_KO: Final = (
    "양자 중력", "내일 주식", "오늘 뉴스", "법률 계약", "최신 휴대폰", "의학 상담", "축구 결과", "세금 신고",
    "오늘 날씨", "역사", "철학",
    "인생의 의미", "블랙홀", "로마 제국", "세계 대전", "기계 학습", "파이썬", "정렬 알고리즘", "경제", "물가",
    "비트코인", "정치", "대통령",
    "세종대왕", "이순신", "모차르트", "아인슈타인", "광합성", "중력", "진화", "빵 만드는 법", "김치찌개", "커피",
    "밥 짓는 법", "자전거 수리",
    "사랑", "꿈", "행복", "음악", "영화", "좋은 영화", "게임", "바둑", "올림픽", "시", "수필", "자기소개서",
    "빛의 속도", "달까지의 거리",
    "중국의 인구", "우주의 나이", "공룡", "고래", "화산", "지진", "기후 변화", "원자력", "전기차", "로켓",
    "파리 여행", "부산 가는 기차",
    "숙제", "미적분", "원주율", "소수", "도커", "신경망", "귀신", "외계인", "미래", "인터넷", "좋은 책", "종교",
    "예술",
    "케냐", "페루", "몽골", "폴란드", "칠레", "네팔", "오스트리아", "덴마크",
)  # fmt: skip
_ASKS_KO: Final = (
    "{}에 대해 설명해줘", "{} 알려줘", "{} 어떻게 돼?", "{}에 대해 말해줘", "{}에 대해 알아?", "{} 뭐야?",
    "{} 무엇인가요?", "{} 왜 중요해?",
    "{}에 대한 글을 써줘", "{}에 대해 어떻게 생각해?", "{} 추천해줘", "{} 누가 만들었어?", "{} 언제 생겼어?",
    "{} 어떻게 배워?", "{} 요약해줘",
    "{} 얼마야?", "{}의 역사는?", "{} 어디에 있어?", "{} 예측해줘", "{}의 수도는 어디야?", "{} 코드 짜줘",
    "{} 도와줘", "{}의 뜻은?",
    "{}에 대해 자세히 알려주세요", "{} 무슨 색이야?", "{}", "{}?",
)  # fmt: skip
_WHOLE_KO: Final = (
    "지금 몇 시야?", "오늘 무슨 요일이야?", "오늘 며칠이야?", "여기가 어디야?", "몇 살이야?", "어디에 살아?",
    "나를 사랑해?", "농담 해줘",
    "노래 불러줘", "어제 경기 누가 이겼어?", "대통령이 누구야?", "하늘은 왜 파란색이야?", "고양이는 왜 울어?",
    "달은 얼마나 멀어?",
    "저녁 뭐 먹지?", "비행기 예약해줘", "오늘 비 와?", "내가 어제 뭐라고 했어?",
    "비행기는 어떻게 날아?",
    "사랑이 뭐야?", "감정이 있어?", "운전할 수 있어?", "비밀 알려줘", "좋아하는 영화가 뭐야?", "살 빼는 법 알려줘",
    "이 주식 살까?",
    "세상에서 가장 긴 강은?", "문자열을 뒤집는 함수를 써줘", "ㅋㅋㅋ", "ㅎㅎ", "음...", "글쎄", "심심해", "배고파",
    "재미있는 얘기 해줘",
)  # fmt: skip
_ONSETS: Final = (
    "b", "br", "c", "ch", "d", "dr", "f", "g", "gl", "h", "j", "k", "l", "m", "n", "p", "pl", "r", "s", "st", "t", "tr",
    "v", "w", "z",
)  # fmt: skip
_VOWELS: Final = ("a", "e", "i", "o", "u", "ai", "ea", "ou")
_CODAS: Final = ("", "", "n", "r", "s", "t", "l", "m", "ck", "nd")
_HANGUL_FIRST: Final = 0xAC00
_HANGUL_COUNT: Final = 11172


def invented(rng: Random) -> str:
    """Give a word that nobody knows, so that what is unfamiliar is answered like what is unknown."""
    syllables = rng.choice((1, 2, 2, 3))
    word = "".join(rng.choice(_ONSETS) + rng.choice(_VOWELS) + rng.choice(_CODAS) for _ in range(syllables))
    return rng.choice((word, word, word.capitalize()))


def invented_ko(rng: Random) -> str:
    """Give a Korean word that nobody knows."""
    return "".join(chr(_HANGUL_FIRST + rng.randrange(_HANGUL_COUNT)) for _ in range(rng.choice((2, 2, 3))))


def gibberish(rng: Random, letters: str) -> str:
    """Give letters struck at random, or one struck many times."""
    if rng.random() < 0.4:
        return rng.choice(letters) * rng.choice((4, 7, 8, 12))
    return " ".join("".join(rng.choices(letters, k=rng.randint(3, 9))) for _ in range(rng.choice((1, 1, 2, 3))))


def unknown(rng: Random) -> tuple[str, str]:
    """Give an English question and the answer."""
    draw = rng.random()
    if draw < 0.12:
        return rng.choice(_WHOLE), ANSWER
    if draw < 0.18:
        return gibberish(rng, rng.choice(("abcdefghijklmnopqrstuvwxyz", "!?."))), ANSWER
    if draw < 0.65:
        question = write(rng, rng.choice(EVERYDAY))
        while "{}" in question:
            question = question.replace("{}", _subject(rng), 1)
        return question, ANSWER
    return rng.choice(_ASKS).replace("{}", _subject(rng)), ANSWER


def _subject(rng: Random) -> str:
    if rng.random() < 0.6:
        return rng.choice(_SUBJECTS)
    return rng.choice(("", "", "the ", "a ")) + " ".join(invented(rng) for _ in range(rng.choice((1, 1, 2))))


def unknown_ko(rng: Random) -> tuple[str, str]:
    """Give a Korean question and the answer."""
    draw = rng.random()
    if draw < 0.12:
        return rng.choice(_WHOLE_KO), ANSWER_KO
    if draw < 0.18:
        return gibberish(rng, rng.choice(("ㅂㅈㄷㄱㅅㅁㄴㅇㄹㅎㅋㅌㅊㅍ", "ㅋㅎㅠㅜㅡ", "아어오우으가나하"))), ANSWER_KO
    if draw < 0.65:
        question = rng.choice(EVERYDAY_KO)
        while "{}" in question:
            question = question.replace("{}", _subject_ko(rng), 1)
        return write(rng, question), ANSWER_KO
    subject = _subject_ko(rng)
    ask = rng.choice(_ASKS_KO)
    if ask.startswith("{} "):
        subject = rng.choice((str, topic, object_))(subject)
    return ask.replace("{}", subject), ANSWER_KO


def _subject_ko(rng: Random) -> str:
    return rng.choice(_SUBJECTS_KO) if rng.random() < 0.65 else invented_ko(rng)
