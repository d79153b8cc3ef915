"""Questions as people might type them, in English. No template of the dialogues makes any of them."""

from __future__ import annotations

from typing import Final

QUESTIONS: Final[dict[str, tuple[str, ...]]] = {
    "who": (
        "Hey, who exactly am I speaking with?", "Good morning, could you introduce yourself to me?",
        "hi! whats ur name", "Could you tell me a bit about who you are?",
        "I just installed this. What am I chatting with?", "Are you some kind of chatbot or a real person?",
        "Do you have a name?", "may i ask your name please", "Give me a short introduction of yourself.",
        "Is this ChatGPT I'm talking to?", "What sort of AI is answering me here?",
        "Are you Gemini or something else?", "Good evening. Please say a few words about yourself.", "who r u",
        "Am I talking to a human right now?", "Hello there, mind telling me what you are?",
    ),
    "can": (
        "What sort of things are you able to help with?", "How can you be useful to me?", "hello, what can u do",
        "I'd like to know what you're capable of.", "Which topics do you know something about?",
        "What would be a good question to ask you?", "Can you tell me what kinds of questions I may ask?",
        "Hi! I'm new here. What do you offer?", "What are you useful for?",
        "Give me some examples of what you can answer.", "what is it that you are good for",
        "Tell me everything you can do for me, please.", "Can you explain your capabilities?",
        "What are you capable of doing?",
    ),
    "made": (
        "Which company built you?", "Who is the developer behind you?", "Hi, who were you made by?",
        "Who's your maker?", "Where does your knowledge come from?", "Were you made by OpenAI?",
        "What data did you learn from?", "tell me who created you",
    ),
    "greeting": (
        "Good morning to you!", "hey hey", "Hello, nice to meet you!", "Hi, good to see you.", "hiya", "Howdy!",
        "Hello, anyone there?", "yo",
    ),
    "how are you": ("How's it going?", "How is your day so far?", "How have you been?", "hi, you doing ok?"),
    "thanks": (
        "Thanks, that was really helpful!", "thank u so much", "Many thanks, I appreciate it.", "ok thanks",
    ),
    "goodbye": (
        "Alright, talk to you later!", "I have to go now, bye.", "Take care, see you tomorrow!", "That's all, goodbye.",
    ),
    "fact": (
        "Who painted the Mona Lisa?", "When did the Berlin Wall fall?", "How tall is Mount Everest?",
        "What's the population of Seoul?", "Who wrote Hamlet?", "Why do leaves change color in autumn?",
        "Which element has the symbol Fe?", "Tell me about the history of the Joseon dynasty.",
        "How does a refrigerator keep food cold?", "What is the difference between a virus and a bacterium?",
        "What's the capital of Argentina?", "Hi, can you tell me who won the 2018 World Cup?",
    ),
    "news": (
        "Will it rain in Busan tomorrow?", "What's in the news this morning?",
        "How is the Samsung stock doing today?", "What's the current exchange rate of the dollar?",
        "Is it cold outside right now?", "Who won the election last week?",
        "What time does the last subway leave tonight?", "Any good concerts this weekend?",
    ),
    "advice": (
        "Should I quit my job and go back to school?", "What should I cook for my kids tonight?",
        "Can you recommend a laptop for video editing?", "How do I ask my boss for a raise?",
        "Plan a three-day trip to Jeju for me.", "What's a good gift for my father's birthday?",
        "How can I save more money every month?", "Which language should I learn first, Java or Go?",
    ),
    "feeling": (
        "I feel so lonely these days.", "My girlfriend broke up with me yesterday.",
        "I'm really stressed about my exams.", "My grandmother passed away last week.",
        "I'm so tired of everything.", "I had a terrible day at work.", "I can't stop crying.",
        "Everyone at school hates me and I don't know what to do.",
    ),
    "health": (
        "My dog has been vomiting since this morning, what should I do?", "I have had a headache for three days.",
        "Is it safe to take ibuprofen with alcohol?", "My baby has a fever of 39 degrees.",
        "What are the symptoms of diabetes?", "My back hurts when I sit.", "How many hours should I sleep?",
        "I cut my finger and it won't stop bleeding.",
    ),
    "code": (
        "Write a SQL query that finds duplicate rows.", "How do I center a div in CSS?",
        "Why does my program throw a null pointer exception?", "Fix this bug: for i in range(10) print(i)",
        "Can you write me a bubble sort in C?", "What does git rebase do?", "Explain async and await in Rust.",
        "Make a regex for email addresses.",
    ),
    "text": (
        "Translate this into Korean: The meeting has been moved to Thursday because the manager is ill.",
        "Summarize the following article in three sentences.", "Proofread my essay, please.",
        "Write a birthday message for my coworker.",
        "Rewrite this sentence in a formal tone: gimme the report asap",
        "How would you say 'I would like a cup of coffee' in Japanese?",
    ),
    "maths": (
        "Could you multiply 48 by 7?", "What do you get when you divide 91 by 7?", "1234 + 5678 equals what?",
        "I need the square root of 2025.", "what's 2 to the tenth power", "Solve for x: 3x + 7 = 22",
        "How much is fifteen percent of 240?", "Find the derivative of x squared.", "12 x 13 =",
        "Hey, quick one: 36 times 25?", "What is the sum of 512 and 389?", "How many seconds are there in a week?",
    ),
    "sum": (
        "Hi, what's 6 plus 7?", "what's 9-4?", "Hello! 2 + 2?", "can you tell me 7 times 8",
    ),
    "gibberish": ("qwertyuiop", "sdlkfj wlekrj sldkfj", "!!!", "aaaaaaaaaa", "blorp the fizzle", "k"),
}  # fmt: skip
