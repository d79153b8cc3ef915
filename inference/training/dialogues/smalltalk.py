"""Greetings, thanks, goodbyes, and what people tell of themselves: good news and troubles, one answer to each kind."""

from __future__ import annotations

from typing import Final

HELLO: Final = (
    "[Hello|Hi|Hey|Heya|Hallo|Hey you|Hi hi|hello hello|Hi there|Hey there|Hello there|Greetings|Welcome|sup|helloo|"
    "hii]"
    "[!|.|!!| :)| again| everyone| friend| moa| bot| my friend|]",
    "[Good|A good|Very good] [morning|evening|afternoon|day][!|.| everyone| friend| all| bot|]",
    "[Hello|Hi|Hey], [good to meet you|pleased to meet you|nice meeting you|nice to see you|glad to meet you|I'm back|"
    "I am here|good morning|good evening|good day][!|.|]",
    "[Nice|Pleased|Glad|Good|Happy|Great] to [meet|see|know] you[!|.| too|]",
    "[Is|Are] [anyone|anybody|someone|somebody|you] [there|here|home|online|awake]?",
    "[Hello|Hi|Hey][,|] [are you there|is somebody there|world|can you hear me|can you read this]?",
    "[Hello|Hi|Hey][,|!|] how [are you|are things|is life|do you do|are you doing|you doing][ today| now|]?",
    "How [are you|are things|is life|do you do|are you doing|are you feeling|is everything|you doing]"
    "[ today| now| this morning| tonight| these days|]?",
    "How [is|was|has] your [morning|evening|week|weekend|night|life][ going| been|]?",
    "How's [life|everything|your week|your morning|it been|things]?",
    "[What's up|What is up|whats up|what's new|wassup][ today| with you|]?",
    "[Are you|you] [well|fine|ok|okay|alright|good][ today| now|]?",
    "[Is everything|Everything|All] [fine|ok|okay|good|well][ with you| today|]?",
)
THANKS: Final = (
    "[Thank you|Thanks|thx|ty|thank you|thanks|Cheers][ so much| very much| a lot| a ton| again| for that|"
    " for everything| for your help| for the answer| for your time| for helping| bot| friend|][!|.|]",
    "[Thank you|Thanks], [that helps|that helped|you helped me|this is great|that is good|that was nice|"
    "that was very good|it works|it works now|I understand|great work|well done|that's perfect][!|.|]",
    "[Great|Perfect|Nice|Wonderful|Cool|Good|Super|Very nice|Got it|Okay|Yes], [thank you|thanks][ a lot| so much|"
    "][!|.|]",
    "[I am|I'm] [very |so |really |][grateful|thankful][ to you| for your help|][!|.|]",
    "[I really|I do|We] appreciate [that|your help|this|your answer|your time][!|.|]",
    "[That|This] [was|is] [very |really |so |][helpful|useful|kind of you|nice of you][, thanks|, thank you][!|.|]",
    "[A thousand|Many many|A million|Lots of|So many|Big|Warm] thanks[ to you|][!|.|]",
)
BYE: Final = (
    "[Goodbye|Bye|Bye bye|bye now|Farewell|cya|See ya|See you|So long|Good night|Night][ then| for now| moa| friend| "
    "bot|]"
    "[!|.|]",
    "[See you|Talk to you|Speak to you|Catch you|See ya] [later|soon|again|next time|tomorrow|on Monday|around][!|.|]",
    "[I have to|I must|I need to|I should|I've got to|I will|I'm about to] [leave|go|sleep|get going|head out|log off|"
    "run|stop here|say goodbye][ now| soon| for today|][, see you|, goodbye|. Bye][!|.|]",
    "[I must|I have to|I need to|I should] [go|leave|be going|get going|head home][ now|][!|.|]",
    "[Take care|Have a nice day|Have a good one|Have a good evening|Sleep well|Until next time|Have a good night]"
    "[, bye|, goodbye| and goodbye|][!|.|]",
    "[That is it|That was all|That's it|Enough|I'm done|We are done|Nothing more][ for today| for now|][, bye|. "
    "Goodbye|"
    ". See you|, see you later][!|.|]",
    "[Okay|Ok|Well|All right|Now], [bye|goodbye|see you|see you soon|I'm off|talk soon|bye bye|I'm leaving][!|.|]",
)
GLAD: Final = (
    "[I am|I'm|I feel|We are] [so |very |really |super |quite |][happy|glad|delighted|excited|cheerful|proud]"
    "[ today| now| right now| about it| these days|][!|.|]",
    "[I|We|My son|My daughter] [passed|won] [my|the|a|our] [exam|test|interview|game|match|prize|driving test][ "
    "today|][!|.|]",
    "I [got|landed|found] [the job|a new job|a promotion|a raise|good news|an A|a puppy][ today| yesterday|][!|.|]",
    "[Today|It] was a [great|wonderful|lovely|perfect|fantastic] day[ for me|][!|.|]",
    "[I feel|I am feeling] [great|good|wonderful|fantastic][ today|][!|.|]",
)

_END: Final = "[!|.|~|!!|^^|]"
HELLO_KO: Final = (
    "[안녕|안녕하세요|안녕하십니까|안뇽|안녕안녕|하이|하이요|하잉|할로|안녕하신가요|ㅎㅇㅎㅇ|여보시오|헤이|반가워|"
    "반가워요|반갑습니다|방가|방가방가]" + _END,
    "[안녕|안녕하세요|하이][,|] [반가워|반갑습니다|반가워요|만나서 반갑습니다|만나서 반가워요|처음 뵙겠습니다|좋은 "
    "아침|또 왔어|저 왔어요]" + _END,
    "[만나서|이렇게 만나서|다시 만나서|정말] [반가워|반갑습니다|반가워요|기뻐요]" + _END,
    "[좋은|즐거운] [아침|저녁|오후|밤|하루|점심]" + _END,
    "[좋은|즐거운] [아침|오후|밤|하루|점심|주말]이[야|에요|네|네요|지]" + _END,
    "[거기|누구|아무도|혹시] [있어|있나요|없어|없나요|있니|계세요|안 계세요]?",
    "[계세요|여보세요 거기|들려|내 말 들려|듣고 있어|깨어 있어]?",
    "[잘|별일 없이|건강히|편안히] [지내|지내니|지냈어|지내시죠|지내고 있어|지내나요|지내셨나요|있었어|있었니]?",
    "[안녕하세요|안녕|하이], [잘 지내|잘 지내니|잘 지내시죠|잘 있었어|오랜만이야|어떻게 지내|별일 없어]?",
    "[그동안|오늘|요새|그간] [어떻게 지냈어|어떻게 지내요|어떻게 지내니|잘 지냈어|잘 지내나요|잘 지내세요|별일 "
    "없었어|기분 어때]?",
    "[오늘|요새|지금|요즘|이번 주] [기분|컨디션|하루|상태|생활][{은}|{이}|] [어때|어떠세요|어떠니|어떤가요|좋아|"
    "괜찮아]?",
    "[별일 없어|별일 없으시죠|괜찮아|괜찮으세요|뭐 하고 있어|뭐 해|뭐해|뭐하니|오랜만이야|오랜만이에요|오랜만입니다]"
    + _END,
)  # fmt: skip
THANKS_KO: Final = (
    "[정말 |너무 |진짜 |아주 |늘 |항상 |다 |]"
    "[고마워|고마워요|고맙습니다|감사해요|감사합니다|감사해|고맙다|고맙네|땡큐요|감사|감사요|고마웡|고맙구나]" + _END,
    "[답해줘서|답변|알려줘서|도와줘서|도와주셔서|친절히 답해줘서|설명해줘서|알려주셔서|빠른 답변|대답해 줘서|시간 "
    "내줘서] "
    "[정말 |너무 |][고마워|고마워요|고맙습니다|감사합니다|감사해요|감사드려요]" + _END,
    "[고마워|고맙습니다|감사합니다|감사해요|땡큐], [도움이 됐어|많은 도움이 됐어요|도움 됐습니다|잘 쓸게|잘 이해했어|"
    "최고야|덕분에 해결됐어|잘 됐어]" + _END,
    "[큰|많은|정말] 도움이 [됐어|됐습니다|되었습니다|되었네요][, 고마워|, 감사합니다|. 고마워요|, 고맙습니다]" + _END,
    "[좋아|오케이|알겠어|네|응|그래|완벽해|좋네요|알겠습니다][,|] [고마워|고마워요|고맙습니다|감사합니다|감사해요]"
    + _END,
    "[ㄱㅅ|ㄳ|감솨|감사감사|땡스|쌩큐|탱큐|감사링|ㄱㅅ요]" + _END,
    "[덕분에|네 덕분에|덕분에 정말] [해결했어|잘 됐어|잘 끝났어요|살았어|도움이 많이 됐어요|알게 됐어]" + _END,
)  # fmt: skip
BYE_KO: Final = (
    "[잘 가|잘 있어|잘 자|안녕히 계세요|안녕히 계십시오|바이|빠이|바이바이|굿바이|굿나잇|또 봐|또 봐요|또 만나|또 "
    "뵙겠습니다|잘 자요|안녕히 주무세요]" + _END,
    "[나중에|내일|다음에|이따|다음 주에|조만간|언젠가] [봐|봐요|보자|봅시다|뵙겠습니다|만나|만나요|다시 올게|다시 봐|"
    "다시 올게요|얘기하자]" + _END,
    "[이제|나|저는|난|나는|저] [이제 |그만 |먼저 |][갈게|가볼게|갈게요|가야 해|가야겠어|가야겠다|가봐야 해|잘게|"
    "잘게요|나갈게|끌게|퇴근할게|간다]" + _END,
    "[그만|먼저|슬슬] [갈게|가볼게|갈게요|가야겠다|가보겠습니다|잘게|들어갈게요|일어날게]" + _END,
    "[오늘은|이제|여기서] [여기까지|이만|그만|끝|마칠게|마칠게요|그만할게][, 안녕|, 잘 있어|. 잘 자|. 또 봐|, "
    "수고했어]" + _END,
    "[수고해|수고했어|수고하세요|수고하셨습니다|고생했어|좋은 하루 보내|좋은 하루 되세요|좋은 밤 보내세요|푹 쉬어|푹 "
    "쉬세요|좋은 저녁 보내세요]" + _END,
    "[그럼|자|그래|응] [이만|안녕|갈게|가볼게|또 봐|다음에 봐|안녕히 계세요|나중에 봐|잘 있어|수고해]" + _END,
)  # fmt: skip
GLAD_KO: Final = (
    "[오늘|나|나는|나 오늘|지금|요즘] [너무 |정말 |진짜 |아주 |][행복해|기뻐|신나|기분이 좋아|행복해요|기분 좋아요|"
    "기쁘다|신난다|설레]" + _END,
    "[시험|면접|대회|오디션|자격증 시험][에 붙었어|에 합격했어|에 합격했어요|을 잘 봤어|에 붙었어요|을 통과했어]"
    + _END,
    "[취직|승진|합격|우승|결혼]했[어|어요|습니다|다]" + _END,
    "[오늘|어제|이번 주]는 [정말 |참 |][좋은|멋진|즐거운|행복한|최고의] [날이었어|하루였어|하루였어요|날이었어요|"
    "날이었습니다]" + _END,
    "[좋은|기쁜] [일|소식]이 [있어|있어요|생겼어|생겼어요|있었어]" + _END,
)  # fmt: skip
