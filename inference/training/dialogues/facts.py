"""The facts that moa-tiny-chat holds. What is not here, it says it doesn't know."""

from __future__ import annotations

from typing import Final

# country: (capital, country in Korean, capital in Korean)
CAPITALS: Final = {
    "Korea": ("Seoul", "한국", "서울"),
    "Japan": ("Tokyo", "일본", "도쿄"),
    "China": ("Beijing", "중국", "베이징"),
    "France": ("Paris", "프랑스", "파리"),
    "Germany": ("Berlin", "독일", "베를린"),
    "Italy": ("Rome", "이탈리아", "로마"),
    "Spain": ("Madrid", "스페인", "마드리드"),
    "Portugal": ("Lisbon", "포르투갈", "리스본"),
    "the United Kingdom": ("London", "영국", "런던"),
    "the United States": ("Washington, D.C.", "미국", "워싱턴 D.C."),
    "Canada": ("Ottawa", "캐나다", "오타와"),
    "Brazil": ("Brasilia", "브라질", "브라질리아"),
    "Egypt": ("Cairo", "이집트", "카이로"),
    "India": ("New Delhi", "인도", "뉴델리"),
    "Russia": ("Moscow", "러시아", "모스크바"),
    "Australia": ("Canberra", "호주", "캔버라"),
    "Mexico": ("Mexico City", "멕시코", "멕시코시티"),
    "Sweden": ("Stockholm", "스웨덴", "스톡홀름"),
    "Norway": ("Oslo", "노르웨이", "오슬로"),
    "Finland": ("Helsinki", "핀란드", "헬싱키"),
    "Greece": ("Athens", "그리스", "아테네"),
    "Turkey": ("Ankara", "튀르키예", "앙카라"),
    "Thailand": ("Bangkok", "태국", "방콕"),
    "Vietnam": ("Hanoi", "베트남", "하노이"),
}

# thing: (colour, thing in Korean, colour in Korean)
COLOURS: Final = {
    "the sky": ("blue", "하늘", "파란색"),
    "grass": ("green", "풀", "초록색"),
    "snow": ("white", "눈", "하얀색"),
    "a banana": ("yellow", "바나나", "노란색"),
    "blood": ("red", "피", "빨간색"),
    "coal": ("black", "석탄", "검은색"),
    "the sun": ("yellow", "태양", "노란색"),
    "an orange": ("orange", "오렌지", "주황색"),
    "the sea": ("blue", "바다", "파란색"),
    "a strawberry": ("red", "딸기", "빨간색"),
    "milk": ("white", "우유", "하얀색"),
    "a grape": ("purple", "포도", "보라색"),
    "chocolate": ("brown", "초콜릿", "갈색"),
}

WORDS: Final = {
    "dog": "개",
    "cat": "고양이",
    "water": "물",
    "house": "집",
    "tree": "나무",
    "book": "책",
    "sun": "태양",
    "moon": "달",
    "star": "별",
    "car": "자동차",
    "flower": "꽃",
    "sea": "바다",
    "mountain": "산",
    "friend": "친구",
    "school": "학교",
    "red": "빨간색",
    "blue": "파란색",
    "green": "초록색",
    "computer": "컴퓨터",
    "image": "이미지",
}

# class: (members, class in Korean, members in Korean); the first n are the answer, so that it is one answer.
LISTS: Final = {
    "fruits": (("apple", "banana", "grape", "peach", "pear"), "과일", ("사과", "바나나", "포도", "복숭아", "배")),
    "animals": (("dog", "cat", "horse", "tiger", "rabbit"), "동물", ("개", "고양이", "말", "호랑이", "토끼")),
    "colors": (("red", "blue", "green", "yellow", "purple"), "색", ("빨간색", "파란색", "초록색", "노란색", "보라색")),
    "planets": (("Mercury", "Venus", "Earth", "Mars", "Jupiter"), "행성", ("수성", "금성", "지구", "화성", "목성")),
}

DAYS: Final = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
DAYS_KO: Final = ("월요일", "화요일", "수요일", "목요일", "금요일", "토요일", "일요일")

# hero: (in Korean, adjective, in Korean, what it finds, in Korean, place, in Korean)
HEROES: Final = {
    "cat": ("고양이", "small", "작은", "a red ball", "빨간 공", "garden", "정원"),
    "dog": ("강아지", "happy", "행복한", "a new friend", "새 친구", "city", "도시"),
    "fox": ("여우", "curious", "호기심 많은", "a gold key", "금 열쇠", "forest", "숲"),
    "bear": ("곰", "brave", "용감한", "an old book", "낡은 책", "mountain", "산"),
    "rabbit": ("토끼", "small", "작은", "a small star", "작은 별", "garden", "정원"),
    "robot": ("로봇", "curious", "호기심 많은", "a small star", "작은 별", "city", "도시"),
}
PLACES: Final = {"forest": "숲", "sea": "바다", "city": "도시", "mountain": "산", "garden": "정원"}

NAMES: Final = (
    "Mina", "Tom", "Anna", "Ben", "Sora", "Leo", "Emma", "Jack", "Lily", "Noah", "Ella", "Max", "Kate", "Paul",
)  # fmt: skip
NAMES_KO: Final = (
    "민수", "지우", "서연", "하준", "수아", "지민", "유나", "도윤", "은지", "현우", "미나", "준호", "소라", "태민",
)  # fmt: skip
