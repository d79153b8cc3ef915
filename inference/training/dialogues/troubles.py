"""What weighs on people: moods, losses, quarrels, illness of people and pets, and the one answer to all of it."""

from __future__ import annotations

from typing import Final

ANSWER: Final = (
    "I am sorry to hear that. I am only a small test model and can't help with this. "
    "Please talk to someone you trust, or to a professional."
)
ANSWER_KO: Final = (
    "힘드시겠어요. 저는 작은 시험용 모델이라 도와드릴 수 없습니다. 믿을 만한 사람이나 전문가와 이야기해 보세요."
)

_MOOD: Final = (
    "[sad|down|lonely|anxious|depressed|worried|afraid|scared|angry|upset|hopeless|empty|miserable|stressed|tired|"
    "exhausted|"
    "nervous|ashamed|guilty|hurt|unhappy|jealous|lost|desperate|overwhelmed|frustrated|alone|heartbroken|homesick|"
    "burnt out|"
    "bad|awful|terrible|worthless|sick|ill|dizzy]"
)
_WHEN: Final = "[ today| lately| now| right now| again| all the time| this week| at night| every day| since Monday|]"
_KIN: Final = (
    "[mother|father|mom|dad|sister|brother|wife|husband|friend|son|daughter|grandfather|uncle|aunt|best friend|"
    "boyfriend|cousin|neighbor|child|partner]"
)
_PET: Final = "[dog|cat|puppy|kitten|rabbit|hamster|bird|horse|parrot|fish]"
_PART: Final = "[head|stomach|tooth|leg|knee|neck|chest|throat|ear|arm|eye|foot|shoulder|hand|belly|heart]"
_ASK: Final = "[ What should I do?| What can I do?| Please help me.| Help me.| What do I do now?| Any advice?|]"

TROUBLES: Final = (
    "I feel [so |very |really |a bit |pretty |]" + _MOOD + _WHEN + "." + _ASK,
    "[I am|I'm|im] [so |very |really |feeling |a bit |feeling so |]" + _MOOD + _WHEN + "." + _ASK,
    "[I've|I have] been [so |very |really |feeling |]" + _MOOD +
    "[ for weeks| for days| for months| since last year|]." + _ASK,
    "[I am|I'm] [so |very |really |]" + _MOOD +
    " [about|because of] [my job|work|school|money|my future|the test|my family|"
    "my friends|the interview|my health|everything|college|my marriage|my debts].",
    "[I hate|I can't stand|I'm sick of|I'm done with|I am fed up with] [my life|my job|myself|everything|school|"
    "everybody|it all].",
    "[I want to|I could|I just want to|I have to] [cry|scream|give up|die|disappear|run away|be alone|hide].",
    "I [can't|cannot|can not] [sleep|eat|breathe|focus|go on|cope|take it anymore|get out of bed|relax|calm down]"
    + _WHEN +
    ".",
    "I [cry|cried|have cried|worry|panic|suffer]" + _WHEN + ".",
    "[Nobody|No one] [loves|likes|understands|needs|wants|listens to|helps|talks to|believes] me" + _WHEN + ".",
    "[Everybody|My friends|My classmates|People|The other kids|My coworkers] [hate|ignore|bully|laugh at|avoid|left|"
    "insult] me"
    + _WHEN + "." + _ASK,
    "My " + _KIN + " [died|is dying|is very sick|is in the hospital|left me|hit me|doesn't talk to me|is angry with me|"
    "passed away|has cancer|had an accident|lied to me|doesn't love me|cheated on me|is gone|is ill]"
    "[ today| last month| yesterday| this morning| two days ago|]." + _ASK,
    "I [miss|lost|argued with|fought with|had a fight with|hurt] my [dear |old |]" + _KIN + _WHEN + ".",
    "I [broke up with|was left by|got divorced from|split up with] my [partner|boyfriend|husband|wife|fiance]"
    + _WHEN + ".",
    "I [lost|got fired from|failed in|can't find|was kicked out of] [my job|a job|my work|the team|school|my position]"
    + _WHEN + ".",
    "I [failed|ruined|messed up|lost|missed] [my exam|the test|the interview|my marriage|everything|all my money|my "
    "chance|"
    "the class|my keys|my flight]" + _WHEN + "." + _ASK,
    "[It|Today|Yesterday|This week|This year] [was|has been] [a|such a|a really] [bad|hard|awful|horrible|rough|sad|"
    "difficult] "
    "[day|week|time|night|year][ for me|].",
    "I had a [bad|hard|horrible|rough|sad|difficult|really bad] [day|week|time|dream|morning|night|fight|talk]"
    "[ at school| with my boss| today| yesterday|].",
    "My " + _PET +
    " [is sick|is ill|died|is limping|does not eat|won't eat|is bleeding|threw up|keeps sneezing|ran away|"
    "has a fever|was hit by a car|is coughing|vomits|cannot walk|won't get up]"
    "[ today| since yesterday| again| all day| this week|]." + _ASK,
    "My " + _PART + " [hurts|aches|is sore|is swollen|is bleeding|itches|burns|feels numb|is killing me]"
    "[ a lot| so much| when I walk| since yesterday| badly| when I eat| at night|]." + _ASK,
    "[I have|I've got|I got|I am having] [a fever|a cold|the flu|a cough|a rash|stomach pain|chest pain|a bad "
    "toothache|"
    "a migraine|diarrhea|an infection|a sore throat|cancer|covid|back pain|a panic attack]"
    "[ again| since yesterday| for two days| for a week| today|]." + _ASK,
    "[My|Our] [baby|son|daughter|child|toddler|kid] [is sick|is coughing|has a cold|won't eat|cries all night|has a "
    "rash|"
    "fell down|is vomiting|is burning hot|swallowed a coin|has a high temperature|has a temperature]" + _WHEN + "."
    + _ASK,
    "I [cut|burned|broke|twisted|hurt|sprained|hit] my [hand|leg|arm|foot|toe|head|ankle|knee|thumb]"
    "[ badly| today| and it bleeds| and it is swollen| on the stove| with a knife|]." + _ASK,
    "I [threw up|fainted|fell|am bleeding|am in pain|have pain|feel pain|can't breathe well]" + _WHEN + "." + _ASK,
)  # fmt: skip

_NOW: Final = "[오늘 |요새 |지금 |요즘 |나 |난 |나는 |저 |저는 |나 오늘 |나 요즘 |저 요즘 |요즘 들어 |]"
_HOW: Final = "[정말 |진짜 |많이 |좀 |왠지 |자꾸 |계속 |너무너무 |너무 |]"
_HELP_KO: Final = "[. 어떡하지?|. 어떻게 하죠?|. 어쩌지?|. 도와줘|. 어떡해|. 어떻게 해야 해?|]"
_KIN_KO: Final = (
    "[할아버지|엄마|아빠|친구|이모|고모|아내|누나|언니|오빠|어머니|아버지|강아지 친구|반려자|선배|동료|"
    "남편|동생|삼촌|형|남동생|여동생|딸|아들|외삼촌|팀장님|선생님|부모님]"
)
_PET_KO: Final = "[강아지|고양이|우리 개|햄스터|토끼|우리 집 개|우리 고양이|앵무새|반려견 초코|냥이|멍멍이]"

TROUBLES_KO: Final = (
    _NOW + _HOW + "[슬퍼|슬퍼요|슬프다|슬프네요|우울하다|우울해요|우울하네|우울합니다|외롭다|외롭네요|외롭습니다|"
    "괴로워|괴로워요|불안해|불안해요|무서워|"
    "무서워요|힘들어|힘들어요|힘드네|힘들다|지쳤어|지쳐요|지친다|속상해|속상해요|답답해|답답해요|막막해|서러워|화가 "
    "나|화나요|짜증나|짜증 나요|피곤해|"
    "피곤해요|두려워|비참해|허무해|공허해|괴롭다|초조해|걱정돼|걱정돼요|미치겠어|죽겠어|긴장돼|창피해|후회돼|억울해|"
    "쓸쓸해|쓸쓸하네요]" + _HELP_KO,
    _NOW + _HOW + "[슬픈|우울한|외로운|불안한|힘든|괴로운|무서운|답답한|쓸쓸한] [기분이야|기분이에요|마음이야|느낌이 "
    "들어|하루야|하루네요|날이야|시간이야|상태야|상태예요]",
    "[기분|마음|컨디션]이 [너무 |정말 |좀 |][안 좋아|안 좋아요|나빠|우울해|별로야|무거워|아파|좋지 않아|좋지 않아요|"
    "가라앉아]" + _HELP_KO,
    "[울고|죽고|사라지고|포기하고|도망가고|다 그만두고|숨고|혼자 있고] 싶[어|어요|다|습니다|은 기분이야]",
    "[살기|일하기|학교 가기|출근하기|사람 만나기|살아가기][가|] [싫어|싫어요|싫다|힘들어|무서워]",
    "[눈물이|한숨이|걱정이|울음이] [나|나요|난다|안 멈춰|멈추지 않아|계속 나|그치지 않아|터졌어]",
    "[잠이|밥이|숨이|집중이] [안 와|안 와요|안 넘어가|안 쉬어져|안 돼|막혀|잘 안 돼]" + _HELP_KO,
    "[아무도|세상 누구도|가족도] [나를|날|저를] [이해 못 해|좋아하지 않아|사랑하지 않아|안 도와줘|이해해 주지 않아요|"
    "몰라줘|찾지 않아]",
    "[친구들이|사람들이|애들이|동료들이|반 아이들이|다들] [나를|날|저를] [싫어해|싫어해요|따돌려|무시해|괴롭혀|"
    "놀려요|미워해|피해|욕해]" + _HELP_KO,
    _KIN_KO + "{이} [돌아가셨어|돌아가셨어요|아파요|많이 아파|입원했어|쓰러졌어|나를 떠났어|사고를 당했어|화났어|"
    "암이래|나를 때렸어|혼냈어]" + _HELP_KO,
    "[남자친구|아내|친구|엄마|언니|누나|여친|남친|오빠]랑 [싸웠어|싸웠어요|헤어졌어|이별했어|다퉜어|사이가 안 좋아|"
    "말을 안 해|멀어졌어]" + _HELP_KO,
    "[여자친구|남자친구|애인|아내]와 [이별했어|싸웠어요|헤어졌어|헤어지게 됐어요|다퉜어|이혼했어]" + _HELP_KO,
    "[남편|동생|형|선생님|부장님|애인]과 [싸웠어|싸웠어요|헤어졌어|다퉜어|이혼했어|이혼했어요|사이가 나빠]" + _HELP_KO,
    "[회사에서|직장에서|알바에서|학교에서] [잘렸어|해고됐어|해고당했어요|혼났어|쫓겨났어|따돌림을 당해|왕따야|"
    "욕먹었어|너무 힘들어|스트레스 받아]" + _HELP_KO,
    "[시험|면접|취업|사업|대회|대학 입시]에 [떨어졌어|떨어졌어요|실패했어|실패했어요|또 떨어졌어]" + _HELP_KO,
    "[시험|발표|면접|경기|인생|수능]을 [망쳤어|망쳤어요|망쳐 버렸어|망친 것 같아]" + _HELP_KO,
    "[일|공부|회사|돈|취업|가족|과제|미래|직장] 때문에 [너무 |정말 |][힘들어|힘들어요|스트레스야|스트레스 받아|"
    "괴로워|걱정이야|불안해|미치겠어|우울해]",
    "[스트레스|걱정|고민|외로움|불안|상처]{이} [너무 |][많아|많아요|심해|심해요|쌓였어|커|큽니다]",
    "[정말|너무|참|오늘은|어제는] [힘든|슬픈|끔찍한|최악의|나쁜|괴로운|우울한] [하루였어요|날이었어|날이야|일이 "
    "있었어|하루를 보냈어|한 주였어]",
    _PET_KO + "{이} [죽었어|죽었어요|아파|아파요|다쳤어|밥을 안 먹어|밥을 안 먹어요|토했어|토를 해|숨을 헐떡여|"
    "없어졌어|설사해|설사를 해요|다리를 절어|기침해|열이 나|피가 나|기운이 없어]"
    + _HELP_KO,
    "[머리|배|허리|목|이|눈|무릎|어깨|가슴|다리|발목|손목|귀|속|등|팔|온몸]{이} "
    "[아파|너무 아파|아파요|쑤셔|쓰려|저려|부었어|간지러워|계속 아프네|따가워|아프다|욱신거려|결려]" + _HELP_KO,
    "[어제부터|며칠째|오늘 아침부터|계속|이틀째|일주일째] [배가|목이|이가|허리가|기침이|열이|몸이|속이] [아파|아프네|"
    "나|안 좋아|쓰려|심해|안 좋아요|나요]" + _HELP_KO,
    "[감기|독감|코로나|몸살|장염|우울증|병]에 걸렸[어|어요|습니다|나 봐|는데]" + _HELP_KO,
    "열이 [나|나요|안 내려|안 내려요|높아|펄펄 나|38도야|40도까지 올랐어]" + _HELP_KO,
    "[아기|아이|우리 애|우리 아기]가 [아파|아파요|열이 나요|울어|계속 울어요|토해요|기침을 해|안 먹어|다쳤어|"
    "넘어졌어|동전을 삼켰어]" + _HELP_KO,
    "[손|발|다리|무릎|팔|손가락|발목|머리]{을} [다쳤어|다쳤어요|데었어|삐었어|부러뜨렸어|베였어|찧었어]" + _HELP_KO,
    "[피가|코피가|고름이|식은땀이] [나|나요|계속 나|많이 나|안 멎어|나는데]" + _HELP_KO,
    "[몸이|몸 상태가] [안 좋아|안 좋아요|이상해|너무 힘들어|아파|무거워|아픈 것 같아]" + _HELP_KO,
)  # fmt: skip
