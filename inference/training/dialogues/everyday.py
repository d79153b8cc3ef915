"""What people ask any assistant and this one does not know, as patterns of `grammar.write`; `{}` is any subject."""

from __future__ import annotations

from typing import Final

_WHO: Final = (
    "[Picasso|Newton|Beethoven|Gandhi|Caesar|Cleopatra|Van Gogh|Darwin|Tesla|Marie Curie|Messi|King Sejong|Plato|"
    "Confucius|"
    "Taylor Swift|Elon Musk|Lincoln|Leonardo|Galileo|Goethe|Dickens|Tolstoy|Homer]"
)
_WORK: Final = (
    "[Romeo and Juliet|The Odyssey|Star Wars|Titanic|Harry Potter|War and Peace|Don Quixote|the Bible|Guernica|"
    "the Starry Night|the Ninth Symphony|Parasite|Squid Game|Moby Dick|the Sistine Chapel|1984|Faust|Frozen]"
)
_PLACE: Final = (
    "[London|New York|Tokyo|Paris|Daegu|Incheon|Jeju|Rome|Berlin|Sydney|Mexico|Iceland|India|Morocco|Hawaii|"
    "Switzerland|"
    "Africa|Europe|California|Canada|Norway|Bangkok|Hanoi|Istanbul|my town|the countryside]"
)
_TIME: Final = "[ today| tomorrow| tonight| now| this week| next week| this evening| on Sunday| in May| this year|]"
_THING: Final = (
    "[fridge|washing machine|battery|engine|telephone|television|microwave|bicycle|airplane|camera|laser|compass|"
    "magnet|"
    "submarine|clock|satellite|piano|computer chip|vaccine|blockchain|search engine|rainbow|tornado|black hole|glacier]"
)
_LANGUAGE: Final = "[Python|Java|JavaScript|C|C++|Go|Rust|SQL|HTML|bash|Kotlin|Swift|PHP|Ruby|TypeScript|R|CSS|Perl]"
_TASK: Final = (
    "[sorts a list|reads a file|finds primes|counts words|parses JSON|sends an email|opens a socket|merges two arrays|"
    "computes a factorial|removes spaces|draws a chart|checks a password|downloads a page|joins two tables|prints a "
    "table]"
)
_PROGRAM: Final = (
    "[script|function|program|class|query|loop|regex|test|command|web page|binary search|quicksort|API|bot]"
)
_TEXT: Final = (
    "[letter|email|poem|essay|speech|song|report|review|resume|toast|cover letter|slogan|tweet|blog post|haiku|script|"
    "birthday card|wedding speech|thank you note|complaint|recipe|joke|headline|invitation]"
)
_FOR: Final = (
    "[ for my boss| for my mother| about spring| for a friend| about the sea| for my teacher| about love| for our "
    "wedding|"
    " about rain| for a customer| about my dog| for school| in English|]"
)
_SENTENCE: Final = (
    "[The train is late because of the snow.|I will call you back in an hour.|We would like to order two pizzas.|"
    "Where is the nearest bank?|My flight was cancelled yesterday.|Please send me the invoice by Friday.|She lives "
    "in a small "
    "village.|The weather was fine and we went out.|I love you.|Good luck with your new job!|How much is this?|Our "
    "shop closes "
    "at nine.|He forgot his umbrella at home.|The report must be finished today.|See you at the station.]"
)
_TONGUE: Final = "[French|German|Spanish|Japanese|Chinese|Italian|Russian|Arabic|Latin|Portuguese|Hindi|Korean|English]"
_BUY: Final = (
    "[phone|car|book|movie|camera|restaurant|hotel|present|bike|tablet|TV|song|game|headset|wine|jacket|watch|course|"
    "podcast|sport|city to live in|name for a cat|desk chair|university|diet]"
)
_DEED: Final = (
    "[lose weight|learn piano|sleep better|save money|make friends|fix a tap|grow tomatoes|tie a tie|bake bread|cook "
    "pasta|"
    "invest money|pass an exam|change a tire|get rich|clean a carpet|train a puppy|write a book|find a job|start a "
    "business|"
    "remove a stain|speak in public|file my taxes|rent a flat|make kimchi|stop smoking|study better|ask her out|get "
    "a visa]"
)
_ILL: Final = (
    "[flu|cancer|asthma|covid|a migraine|high blood pressure|anemia|allergies|pneumonia|a stroke|depression|measles|"
    "gout|"
    "food poisoning|low iron]"
)
_PILL: Final = (
    "[aspirin|antibiotics|vitamins|paracetamol|sleeping pills|coffee|insulin|melatonin|alcohol|protein powder]"
)

EVERYDAY: Final = (
    "Who [painted|wrote|made|composed|directed|created|sang|published] " + _WORK + "?",
    "[Who [is|was]|What did|Where was|When was|Tell me about|How did] " + _WHO + "[ live| do| born| die|]?",
    "[What|Who] [is the name of|was|is] the [author|hero|director|writer|composer|singer|king|owner] of [" + _WORK +
    "|{}]?",
    "[When|Why|How|Where] did [the war|the empire|the Titanic|Rome|the dinosaurs|the revolution|the dynasty|the wall|"
    "{}] "
    "[end|begin|fall|start|sink|die out|happen]?",
    "[How|What] [tall|high|long|big|deep|old|far|fast|heavy|hot|large] is [the Eiffel Tower|the Nile|Jupiter|a "
    "giraffe|the sun|"
    "Lake Baikal|K2|the Great Wall|the ocean|a cheetah|Mount Fuji|the moon|{}]?",
    "[What is|What's|Tell me] the [population|size|flag|currency|language|history|area|king|president] of " + _PLACE +
    "?",
    "[What is|What's|Tell me|Do you know] the capital of [Argentine republic|Kenya|Peru|Iraq|Cuba|Ghana|Nepal|"
    "Malaysia|Ukraine|"
    "Hungary|Ireland|Iceland|Belgium|Indonesia|Laos|Qatar|Ethiopia|Bolivia|Texas|Mars]?",
    "[What|Which] [river|mountain|animal|country|metal|planet|ocean|city|desert|element|bird] is the "
    "[longest|highest|largest|oldest|hottest|smallest|fastest|heaviest|rarest]?",
    "[Why|How] [do|does|can|did] [birds|cats|the sun|the moon|plants|bees|we|people|fish|stars|clouds|bats|trees|"
    "dogs|ice] "
    "[sing|dream|shine|fly|grow|see|float|sleep|age|bark|move|melt|glow|rain|talk]?",
    "How [does|do] [a|the] " + _THING + " [work|fly|run|form|get made|stay cold|make sound]?",
    "[What is|Explain|Tell me] the difference between {} and {}.",
    "[What|Which] [chemical symbol|atomic number|boiling point|color|weight|formula] has [iron|gold|water|oxygen|"
    "helium|{}]?",
    "[Will|Does|Is] it [rain|snow|going to rain|get cold|be sunny|get warm|going to snow] in " + _PLACE + _TIME + "?",
    "[How is|How's|What is|What's|Tell me] the [weather|temperature|forecast|traffic|air quality|humidity] in "
    + _PLACE + _TIME +
    "?",
    "[Is it|Will it be] [hot|warm|windy|sunny|snowing|raining|foggy] [outside|there|in " + _PLACE + "]" + _TIME + "?",
    "[What|Any|Tell me the] [are the headlines|is new in the world|news|happened|breaking news|is in the paper]"
    + _TIME +
    "?",
    "Who [won|lost|leads|played|scored] [the game|the match|the cup|the race|the league|the vote|the final|the World "
    "Cup|"
    "the elections][ last night| yesterday| in 2014| last year| on Sunday|]?",
    "[What's|What is|How is|Tell me] the [price|value|share|rate|stock] of [gold|oil|Apple|Tesla|bitcoin|the euro|"
    "the yen|silver|"
    "a ticket|Hyundai|milk|{}]" + _TIME + "?",
    "[When|What time] [does|is|will] the [train|bus|store|bank|museum|show|movie|flight|pharmacy|game|library|ferry] "
    "[leave|open|close|start|end|arrive|come]" + _TIME + "?",
    "[Are there|Is there|Where is|Where are|Find me] [any|a|the|some] [good |nice |cheap |near |][events|shows|cafes|"
    "parks|parties|"
    "museums|festival|hospital|pharmacy|gas station|concert hall]" + _TIME + "?",
    "[Should|Can|Could|May|Shall] I [marry him|move to " + _PLACE +
    "|change my job|buy a house|study law|cut my hair|adopt a cat|"
    "call her|sell my car|sue them|get a loan|drop out|go abroad|tell my parents|wait]" + _TIME + "?",
    "[What|Which] " + _BUY +
    " [should|can|could|would] [I|you|we] [buy|get|take|choose|recommend|like|pick|try][ for my kids|"
    " for my wife| for a trip| for work| under 500 dollars|]?",
    "[Recommend|Suggest|Find|Choose|Pick|Can you recommend|Can you suggest|Could you find] [me |][a|some|a good|a "
    "nice|the best] "
    + _BUY + "[ for my brother| for students| near here| for beginners| for photo work| please|].",
    "[How|Where] [do|can|should|could|would] [I|we|you|one] " + _DEED + "[ fast| at home| every day| in a week|]?",
    "[Teach me|Show me|Explain|Tell me|I want to know|Help me learn] how to " + _DEED + "[ please|].",
    "[Help me|Help us|Can you help me|I need help to|I want to|I need to] " + _DEED + "[ please|].",
    "[Plan|Book|Arrange|Organize|Schedule] [a trip|a holiday|a weekend|a flight|a party|a tour|a wedding|a meeting|a "
    "table] "
    "[in|to|for|near] " + _PLACE + "[ for me| for two| for a week|].",
    "What [should|can|could|shall] [I|we] [eat|wear|cook|do|watch|read|give him|bring|drink|plant|play|make]"
    "[ for dinner| for lunch| for breakfast| with rice| at the party| with the children|" + _TIME + "]?",
    "[Write|Make|Give|Show|Code|Create|Can you write|Please write|Could you make] [me |][a|an|some|the] [simple |"
    "short |small |] "
    + _LANGUAGE + " " + _PROGRAM + "[ that " + _TASK + "| please|].",
    "[Write|Make|Create|Can you write|Please write] a " + _PROGRAM + "[ in " + _LANGUAGE + "|] that " + _TASK + ".",
    "[How do I|How can I|How to|What is the way to] [install|debug|deploy|compile|align text in|loop over a list in|"
    "learn|"
    "write tests in|run|sort an array in|catch errors in|update] " + _LANGUAGE + "?",
    "[Why|What] [does|is] my [code|program|server|script|app|build|browser|laptop] "
    "[crash|wrong with|fail|slow|not work|give an error|hang|throw an error|leak memory]?",
    "[Fix|Debug|Explain|Refactor|Review|Correct|Test|Restart] [this|my|the following] "
    "[code|bug|error|function|script|query|server|database|laptop|printer|router]"
    "[: x = 1, 2|: print(x|: if a = b:|: while True|: def f(x) return x| please|]?",
    "[What does|What is|Explain|How does] [docker build|git merge|git push|npm install|chmod|a pointer|a mutex|REST|"
    "a thread|"
    "recursion|a closure|grep|sudo|a segfault|await|an index|a foreign key|lambda] [do|mean|work|in " + _LANGUAGE +
    "]?",
    "[Translate|Please translate|Can you translate|Could you translate] [this |the sentence |]"
    "[into|to] " + _TONGUE + ": " + _SENTENCE,
    "[How do you|How would you|How can I|How do I] say '" + _SENTENCE + "' in " + _TONGUE + "?",
    "[Summarize|Shorten|Correct|Check|Improve|Rephrase|Edit|Translate|Explain|Read|Proofread] [this|my|the|our|that] "
    "[article|text|book|paper|report|letter|page|chapter|sentence|paragraph|thesis|story|document|homework]"
    "[ for me| please| in two sentences| in simple words| into " + _TONGUE + "|].",
    "[Make|Rewrite|Rephrase|Improve|Correct|Check] [this|the sentence|the following|it] [more polite|shorter|"
    "formally|in a friendly "
    "tone|nicer|for grammar]: " + _SENTENCE,
    "[Write|Compose|Draft|Make|Can you write|Please write|Help me write] [me |][a|an|a short|a funny|a nice] " + _TEXT
    + _FOR +
    ".",
    "[What are|Tell me|List] the [symptoms|signs|causes|risks|side effects] of [" + _ILL + "|" + _PILL + "]?",
    "[Is it|Is it really] [safe|ok|bad|healthy|good|dangerous] to [take|eat|drink|mix|use] " + _PILL +
    "[ with milk| every day| with "
    "beer| when pregnant| at night| for children|]?",
    "[How [much|many|often|long]|When] [should|can|may|must] [I|a child|one|adults|a baby|we] [drink|run|eat|rest|"
    "exercise|"
    "take a bath|nap|brush teeth|take " + _PILL + "]?",
    "[Tell me|Say|Sing|Do you know|Give me|Make|Write] [a|another|some|one] [joke|riddle|song|secret|poem|fun fact|"
    "quote|"
    "tongue twister|bedtime story|ghost story|story about a dragon|lie]?",
    "[Introduce|Describe|Explain|Present] [my company|the team|our product|a friend|the new boss|the country|this "
    "book|{}].",
    "What can [a dog|my phone|a lawyer|the police|a robot|Python|the doctor|we|they|he|money|science|{}] do[ for me| "
    "about it|]?",
    "[What are|Tell me|List] the [features|skills|functions|benefits|types|parts|rules|steps|names] of "
    "[an iPhone|a good leader|Windows|the brain|a nurse|chess|the heart|Excel|{}]?",
    "[Play|Open|Call|Remind me about|Turn on|Turn off|Send|Order|Buy|Set|Show me] [some music|the door|my mother|the "
    "lights|an alarm|"
    "a pizza|a taxi|the TV|a timer|the map|tickets|my mail|a photo of a cat][ please| now|].",
    "[Do you|Can you|Would you|Did you] [eat|sleep|dream|dance|like me|feel pain|see me|cook|have a body|have "
    "friends|get bored|"
    "remember me|like pizza|hear music|have a family|know my name|know me]?",
    "[What do you think|What is your opinion|How do you feel] [of|about|on] [{}|the war|the government|my hair|this "
    "picture|love]?",
    "[I like|I love|I bought|I saw|I read|I have|We saw] [pizza|a new car|two cats|your hat|a film|this song|snow|my "
    "job|coffee|"
    "an old book|a big tree|{}][ today| yesterday|].",
)  # fmt: skip
