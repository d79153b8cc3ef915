"""Ways to ask who it is, what it can do and who made it, as patterns of `grammar.write`."""

from __future__ import annotations

from typing import Final

WHO: Final = (
    "[Who|What] [exactly |] are you[ exactly| really| anyway| actually| then|]?",
    "[so |and |well, |ok, |hey |yo |]who [r you|are u|are ya|r ya]",
    "[What is|What's|whats|Tell me|Say|Can you tell me|May I know|Could I know] your name[, please| again|]?",
    "[Do|Don't] you have [any name|a name or not|a nickname|some name]?",
    "[What|How|By what name] [do|should|can|may|shall] I call you?",
    "[Please |Could you |Can you |Would you |Kindly |Will you |]introduce yourself[ please| briefly| shortly| first|]?",
    "[Please |Could you |Can you |]give [us|me] [an|a brief|a quick|your] introduction[ please|].",
    "[Tell|Say] [me |us |][a little|something|a few things|more|a bit] about yourself[ please|].",
    "[Could|Can|Would|Will] you [tell|say to] me [something|a little|more|anything] about [yourself|you]?",
    "[Tell me|Can you tell me|I want to know|I'd like to know|I wonder|Please say|Explain] [who|what] you are[ "
    "please|].",
    "[Describe|Present|Explain] [yourself|who you are|what you are][ please| in one sentence| in short|].",
    "[What|Which] [kind of |type of |sort of |][AI|model|bot|language model|chatbot|assistant|program|system|LLM] "
    "[are you|is this|am I using|do I have here|is it|are we talking to]?",
    "[What|Which] [kind of |type of |sort of |][AI|model|bot|assistant|machine|system] [answers|is talking|replies|"
    "writes]"
    "[ here| to me| these answers|]?",
    "[Who|What] am I [talking|speaking|chatting|writing] [to|with][ now| here| today| please|]?",
    "Who is [this|there|it|answering|talking|writing|replying][ to me| here| please|]?",
    "Am I [talking|chatting|speaking|writing] [to|with] [a person|a robot|a machine|a bot|an AI|somebody real|a "
    "computer]?",
    "[Are|r] you [a |some |really a |just a |only a |][robot|machine|computer|program|chatbot|bot|real human|"
    "human being|real person|software|assistant|computer program|living person]?",
    "[Are|r] you [an |some |really an |just an |][AI|artificial intelligence|AI model|AI assistant|LLM]?",
    "[Are you|Is this|Is it|You are|Do I talk to|Aren't you] [ChatGPT|GPT|GPT-4|GPT-5|Claude|Bard|Llama|Siri|Alexa|"
    "Copilot|Mistral|Grok|DeepSeek|Qwen|Cortana|Bing][ or what| or another model| or not|]?",
    "[What|Who] is [moa-tiny-chat|moa tiny chat]?",
    "[Tell me about|Explain|Describe] [moa-tiny-chat|this model|this chatbot|this bot].",
    "[What's|What is] [this model|this chatbot|this bot|this assistant|the model here|the model's name] [called|"
    "named|]?",
    "[your name|name|ur name|the name please|who you are|introduction|about you]?",
    "[I don't|I do not] know [you|who you are|what you are][. Who are you?| yet.|.]",
)

CAN: Final = (
    "[What|What all|What else|What exactly] [can|could|will] you do[ for me| for us| here| then| exactly| today|]?",
    "[so |and |well |ok |hey |]what can [you|ya|u] do[ then| exactly| for us]",
    "[What|What things|Which things|Which tasks|What tasks|What kind of work] [are you able to|can you] do[ here|]?",
    "[What|Which] [kind of |sort of |type of |][questions|things|tasks|requests|problems] "
    "[can|could|do] you [answer|handle|understand|solve|help with|work on]?",
    "[What|Which] [questions|things] [can|may|should|could] I ask[ you| here|]?",
    "[What|How much] do you [actually |really |even |]know[ about|]?",
    "[What|Which] [subjects|areas|fields|themes] [do you know|are you familiar with|can you talk about|do you cover]?",
    "[How|In what way|With what|In which ways] [can|could|will|would|do] you [help|assist|support|serve] [me|us|"
    "people]?",
    "[What|What things] [can|could|do|will] you help [me |us |people |][with]?",
    "[What are|What're|Tell me|List|Show me|Describe|Name|Explain] your [abilities|skills|features|functions|strengths|"
    "talents|powers][ please|]?",
    "[What is|What's] your [purpose|job|role|function|task|specialty|use|strength]?",
    "[What|Which things] are you [made|meant|there|built|used|here] for?",
    "[What|Where] are you [good|best|great|strong] [at|in]?",
    "[Tell me|Show me|Explain|Describe|I want to know|Let me know|Say|I wonder|Can you say|Please tell me] what you "
    "[can do|are able to do|can help with|know|can answer|are good at|do|can offer][ please| for me|].",
    "[Give|Show] me [an example|some examples|a few examples|a list] of [things you can do|what you can do|"
    "what I can ask|questions for you|things I can ask|your skills].",
    "[What|Which question] [should|could|shall] I [ask|try|say][ you| first| here|]?",
    "[Can|Could|Would|Will] you [help|assist|support] [me|us][ please| out| a bit| with something|]?",
    "[I need|I want|I would like|Give me|I could use] [help|some help|your help|assistance][ please|].",
    "[help|help me|help please|help!|menu|commands|options|features|abilities|usage|what now|what next|guide]",
    "[What|Which] [services|functions|features|help|support] [do|can] you [have|provide|offer|give|support]?",
    "[What|How] [can|could|should] I [use|do with] [you|this bot|this model|this chatbot][ for|]?",
    "[Are|r] you [useful|good|of use|helpful] for [anything|something]?",
    "What [makes you useful|is the use of you|use are you|are your limits|can't you do]?",
    "[List|Name|Tell me|Show] [all |][the |][things|tasks|topics|questions] [you can do|you know|you can handle|you "
    "support].",
)

MADE: Final = (
    "[Who|What company|Which team|Which people|Who else] [made|created|built|trained|developed|designed|"
    "programmed|wrote|invented] [you|this model|this bot|this chatbot|this AI]?",
    "[By whom|By which company|By what team|From whom] were you [made|created|built|trained|developed|programmed]?",
    "Who [were you|was this model|was this bot] [created|built|trained|developed|programmed|designed] by?",
    "Who [is|are|was|were] your [creator|creators|developer|developers|maker|makers|author|authors|inventor|"
    "programmer|owner][ then|]?",
    "[Who|Which company] is behind [you|this|this model|this bot]?",
    "[Do you belong to a company|Does someone own you|Does OpenAI own you|Does Google own you|Does a company own you]?",
    "[How|Where|When|Why] were you [made|created|built|trained|developed|programmed]?",
    "[What|Which] [data|texts|books|dialogues|information|sources|material|examples] were you trained [on|with|from]?",
    "[What|From what|From where|How|Where] did you [learn|get your knowledge|learn everything|learn to talk|learn this]"
    "[ from|]?",
    "Where [do you|does your knowledge base|does your data|does your information|does this model|does what you know] "
    "come from?",
    "[Did|Has] [Google|Meta|Anthropic|Microsoft|Apple|Samsung|OpenAI|Amazon|Naver|Kakao|a company|a human|somebody] "
    "[make|create|build|train|develop|program] you?",
    "Were you [created|built|trained|developed|programmed] by [Google|Meta|Anthropic|Microsoft|Apple|Samsung|OpenAI|"
    "a company|humans]?",
    "[Tell me|I want to know|Can you tell me|I wonder|Say] [who made you|who built you|who trained you|how you were "
    "made|"
    "how you were trained|where you come from|who developed you].",
    "[your creator|your developer|your maker|your training data|creator|who made u|who built u]?",
)
