import type { Word } from "./i18n.svelte";

export const ko: Record<Word, string> = {
  skip: "본문으로 건너뛰기", menu: "메뉴", theme: "화면 테마", theme_system: "시스템 설정", theme_light: "라이트", theme_dark: "다크",
  logout: "로그아웃", loading: "불러오는 중…", close: "닫기", cancel: "취소", save: "저장", saveFile: "파일로 저장", saved: "저장했습니다.", create: "만들기",
  change: "수정", copy: "복사", copied: "복사됨", copyFailed: "브라우저가 복사를 허용하지 않았습니다. 직접 선택해 복사하세요.",
  copyCommand: "명령 복사", search: "검색", refresh: "새로고침", more: "더 보기", hide: "숨기기", done: "완료", never: "없음", actions: "작업",
  noPage: "페이지를 찾을 수 없습니다.", toStart: "홈으로", administration: "관리", apiDocs: "API 문서",
  offline: "게이트웨이에 연결할 수 없습니다. 연결을 확인하고 다시 시도하세요.", retryAfter: "{seconds}초 뒤에 다시 시도하세요.",
  requestId: "(요청 ID {id})", unknown: "알 수 없음", others: "기타", nobody: "(없음)", unnamed: "이름 없음",

  start: "홈", chat: "채팅", imagesPage: "이미지", models: "모델", keys: "API 키", usage: "사용량", tasks: "작업", account: "계정", myAccount: "내 계정",
  team: "팀", accounts: "계정", teams: "팀 관리", budgets: "예산", invitations: "초대", providers: "공급자", audit: "감사 로그",

  welcome: "Moa 로그인", welcomeNote: "모든 모델을 하나의 게이트웨이로.", login: "로그인", signup: "가입하기", email: "이메일", password: "비밀번호",
  newPassword: "새 비밀번호 (8자 이상)", oldPassword: "현재 비밀번호", totpCode: "인증 앱 코드", name: "이름", invitation: "초대 코드",
  signupNote: "가입하면 로컬 모델을 바로 사용할 수 있습니다.", toLogin: "로그인하기", toSignup: "계정 만들기", forgot: "비밀번호를 잊으셨나요?",
  forgotNote: "비밀번호를 다시 설정할 수 있는 링크를 이메일로 보내 드립니다.", forgotDo: "링크 받기", forgotDone: "가입된 주소라면 곧 링크가 도착합니다.",
  resetTitle: "비밀번호 재설정", resetNote: "모든 기기에서 로그아웃됩니다. 새 비밀번호로 다시 로그인하세요.", resetDo: "비밀번호 변경", resetDone: "비밀번호를 변경했습니다. 새 비밀번호로 로그인하세요.",
  setup: "시작하기", setupTitle: "Moa에 오신 것을 환영합니다", setupNote: "첫 관리자 계정을 만듭니다. 앞으로 로그인할 이메일과 비밀번호를 정하세요. 이 링크는 한 번만 사용할 수 있습니다.",
  setupDo: "시작하기", ended: "세션이 만료되었습니다. 다시 로그인하면 보던 화면으로 돌아갑니다.", codeNeeded: "인증 앱에 표시된 코드를 입력하세요.",
  identities: "외부 로그인", identitiesNote: "비밀번호 대신 {name}(으)로 로그인할 수 있습니다. 로그인한 뒤 15분 안에 연결하세요.",
  linkWith: "{name} 연결", unlink: "연결 해제", linked: "연결했습니다. 이제 이 방법으로도 로그인할 수 있습니다.",
  loginWith: "{name}(으)로 로그인", oidcFailed: "외부 로그인에 실패했습니다({why}). 다시 시도하세요.",

  hello: "안녕하세요", helloName: "{name} 님, 안녕하세요", startNote: "사용 한도와 지금까지 사용한 양을 확인하세요.", steps: "첫 단계",
  step1: "로컬 모델 써 보기", step1Note: "{model}에게 물어보세요. 이 컴퓨터에서 실행되며 데이터가 밖으로 나가지 않습니다.", openChat: "채팅 열기",
  step2: "공급자 키 추가", step2Note: "OpenAI, Gemini, Anthropic 등을 같은 주소로 사용할 수 있습니다.", openProviders: "방법 보기",
  step3: "동료에게 키 만들어 주기", step3Note: "한도를 정해 동료의 계정을 만드세요.", openAccounts: "계정 만들기",
  stepKey: "API 키 만들기", stepKeyNote: "OpenAI 클라이언트로 내 프로그램에서 Moa를 사용하세요.", openKeys: "키 관리로 이동",
  spent30: "30일 지출", requests30: "30일 요청", tokens30: "30일 토큰", modelsYouMayUse: "사용 가능한 모델",
  standing: "한도", unlimited: "설정된 한도가 없습니다.", resets: "{when}에 초기화",

  limits: "한도", limitsNote: "비워 두면 제한 없음, 0이면 사용할 수 없음을 뜻합니다.", usd: "비용(USD)", tokens: "토큰", images: "이미지", requests: "요청",
  a_day: "일일 {what}", a_month: "월간 {what}", in_total: "누적 {what}", requests_per_minute: "분당 요청", tokens_per_minute: "분당 토큰",
  concurrent_requests: "동시 요청", keyCount: "최대 키 개수", ownLimits: "키별 한도",

  keysNote: "프로그램마다 필요한 한도와 만료일을 정해 키를 따로 만드세요.", createKey: "키 만들기", noKeys: "아직 키가 없습니다",
  noKeysNote: "키가 있으면 OpenAI, Google, Anthropic 클라이언트로 Moa를 사용할 수 있습니다.", showEnded: "폐기되거나 만료된 키 보기", noneActive: "사용 중인 키가 없습니다.",
  keyName: "이름", expires: "만료", created: "생성일", lastUsed: "마지막 사용", mayUse: "사용 범위", manages: "관리 권한", everything: "전체", active: "사용 중", revoked: "폐기됨", expired: "만료됨",
  days: "{count}일 후", priority: "우선순위", asAccount: "계정과 동일", PRIORITY_LOW: "낮음(다른 요청에 양보)", PRIORITY_NORMAL: "보통", PRIORITY_HIGH: "높음", PRIORITY_UNSPECIFIED: "계정과 동일",
  onlyModels: "일부 모델만 허용", rulesNote: "*는 전체를 뜻합니다. 작업을 선택하지 않으면 모두 허용됩니다.", addRule: "규칙 추가", takeAway: "제거",
  OPERATION_TEXT: "텍스트", OPERATION_IMAGE: "이미지", OPERATION_TASK: "작업", managing: "이 계정의 키를 만들고 수정하고 폐기할 수 있음", administering: "게이트웨이를 관리할 수 있음",
  SCOPE_ACCOUNT: "이 계정", SCOPE_ADMIN: "게이트웨이", rotate: "교체", revoke: "폐기", askRotate: "“{name}” 키를 새 키로 교체할까요? 기존 키는 한 시간 동안 더 사용할 수 있습니다.",
  askRevoke: "“{name}” 키를 폐기할까요? 2초 안에 사용이 중단되며 되돌릴 수 없습니다.", gone: "키를 폐기했습니다.", secretTitle: "새 API 키",
  secretNote: "지금 한 번만 표시됩니다. 안전한 곳에 보관하세요.", haveKept: "보관했습니다", tryIt: "바로 써 보기",

  usageNote: "장부와 정확히 일치하는 사용량과 비용입니다.", csv: "CSV 내려받기", whose: "대상", mine: "내 사용량", myTeam: "우리 팀", everybody: "전체", by: "기준", per: "단위", day: "일", month: "월",
  shownAs: "차트", from: "시작일", to: "종료일", model: "모델", key: "키", tag: "태그", provider: "공급자", dialect: "API", noUsage: "이 기간에 사용한 내역이 없습니다", noUsageNote: "기간을 바꾸거나 모델에게 질문해 보세요.",
  unpriced: "요청 {count}건은 가격을 알 수 없어 합계에 포함되지 않았습니다.", chartOf: "{group}별 {what} 추이(수치는 아래 표에 있습니다)", tagNote: "태그가 둘인 요청은 양쪽에 모두 집계되므로 합이 전체보다 클 수 있습니다.",

  modelsNote: "어떤 API로 호출하든 사용할 수 있는 모든 모델입니다.", gives: "출력", text: "텍스트", image: "이미지", embedding: "임베딩", audio: "오디오", video: "비디오", file: "파일", pdf: "PDF", noModels: "모델이 없습니다",
  noModelsNote: "관리자에게 모델 사용 권한을 요청하세요.", noModelsFound: "검색 결과가 없습니다.", status_ready: "사용 가능", status_loading: "불러오는 중", status_waiting: "대기 중", status_idle: "요청 시 실행", status_failed: "실패", status_unavailable: "사용 불가", status_ok: "정상",
  status_not_configured: "설정 안 됨", status_fetching: "내려받는 중", status_unknown: "알 수 없음", status_down: "중단", status_degraded: "불안정", retires: "{when}에 지원 종료.", successor: "{model} 모델로 바꾸세요.", context: "컨텍스트", longest: "최대 출력",
  price: "가격(입력/출력)", priceNote: "가격은 카탈로그 기준이며 100만 토큰당 미국 달러입니다.", listed: "크기별", free: "무료", abilities: "기능", tryModel: "써 보기",

  newChat: "새 채팅", untitled: "제목 없음", chatsNote: "대화는 이 브라우저에만 저장됩니다.", deleteChat: "삭제", askDeleteChat: "이 브라우저에서 대화를 삭제할까요?", history: "대화 목록", notKept: "브라우저 저장 공간이 부족해 대화를 저장하지 못했습니다.",
  secondModel: "두 번째 모델", compareWith: "비교할 모델…", settings: "설정", conversation: "대화", chatEmpty: "무엇이든 물어보세요", chatEmptyNote: "이미지와 파일을 첨부하고, 두 모델을 비교하고, 답변의 코드를 복사할 수 있습니다.",
  idea1: "하늘은 왜 파란가요?", idea2: "서울의 가을에 대한 짧은 시를 써 주세요.", idea3: "무엇을 할 수 있나요?", you: "나", message: "메시지", send: "보내기", ask: "무엇이든 물어보세요…", stop: "중지", attach: "파일 첨부",
  fileTooLarge: "{name}: 이미지가 아니거나 10MB보다 큽니다.", fileUnknown: "{name}: 이미지, PDF, 텍스트 파일만 첨부할 수 있습니다.", answering: "답변을 작성하고 있습니다.", answered: "답변이 완료되었습니다.", answer: "답변",
  waiting: "답변을 기다리는 중…", reasoning: "추론 과정", calls: "{name} 호출", toolResult: "도구 결과", giveResults: "결과 보내기", tryAgain: "다시 시도", regenerate: "다시 생성", stopped: "중지했습니다.",
  broken: "연결이 끊어졌습니다. 받은 내용까지는 남아 있습니다.", tokensInOut: "토큰 {in} → {out}", costUnknown: "비용 알 수 없음", firstAfter: "첫 응답 {time}", tokensASecond: "초당 {count}토큰", cutOff: "최대 길이에서 잘림", before: "이전 답변", after: "다음 답변",
  goOnWith: "이 답변으로 계속", notJson: "도구와 스키마는 올바른 JSON이어야 합니다. 따옴표나 쉼표가 빠지지 않았는지 확인하세요.", system: "시스템 지시문", temperature: "온도(temperature)", topP: "Top p", maxTokens: "최대 출력 토큰", seed: "시드", effort: "추론 강도", asModel: "모델 기본값",
  tools: "도구(JSON)", schema: "답변 JSON 스키마", showCode: "코드 보기", codeNote: "MOA_API_KEY에 키를 넣으면 그대로 실행됩니다.",

  imagesNote: "원하는 그림을 설명하고 만들어지는 과정을 지켜보세요.", prompt: "프롬프트", promptIdea: "파란 사각형 위의 빨간 원", fromPicture: "원본 이미지", drawMask: "마스크 그리기", mask: "마스크", moreSettings: "상세 설정", width: "너비", height: "높이", random: "무작위",
  count: "개수", stepsCount: "스텝", guidance: "가이던스", strength: "변형 강도", negative: "제외할 내용", scale: "강도", addLora: "LoRA 추가", edit: "편집", vary: "변형", make: "만들기", gallery: "갤러리", preview: "미리보기", about: "약 {time} 남음",
  stepOf: "{steps}단계 중 {step}단계", begins: "시작하는 중…", loadingModel: "모델 불러오는 중 {percent}%", storing: "저장 중…", queued: "대기 순서 {place}번째", failed: "실패했습니다.", picture: "이미지", sameAgain: "이 설정으로 만들기", variationOf: "변형: {prompt}",
  noPictures: "아직 이미지가 없습니다", noPicturesNote: "프롬프트를 입력하면 만들어지는 과정이 여기에 표시됩니다.", galleryNote: "이미지는 게이트웨이가 작업을 보관하는 동안 남아 있습니다. 필요한 이미지는 저장해 두세요.", maskNote: "바꿀 부분을 칠하세요. 나머지는 그대로 유지됩니다.",
  maskKeys: "마스크: 방향키로 펜 이동, 스페이스로 칠하기, Shift와 방향키로 선 그리기", pen: "펜 크기", clear: "지우기", useMask: "마스크 적용",

  tasksNote: "백그라운드에서 진행 중인 작업을 실시간으로 확인하세요.", asked: "요청 내용", state: "상태", begun: "시작", look: "자세히", cancelTask: "취소", askCancel: "이 작업을 취소할까요? 완료되지 않은 부분은 청구되지 않습니다.", cancelled: "취소했습니다.", progress: "진행률", task: "작업", deskTask: "데스크",
  noTasks: "아직 작업이 없습니다", noTasksNote: "이미지를 만들면 작업으로 실행되어 여기에 표시됩니다.", openImages: "이미지 만들기", TASK_STATE_PENDING: "대기", TASK_STATE_SUBMITTED: "대기", TASK_STATE_RUNNING: "실행 중", TASK_STATE_SUCCEEDED: "완료", TASK_STATE_FAILED: "실패", TASK_STATE_CANCELLED: "취소됨",
  webhooks: "웹훅", webhooksNote: "게이트웨이가 보내는 웹훅의 서명을 확인할 때 사용하는 비밀 키입니다.", showSecret: "비밀 키 보기", rotateSecret: "비밀 키 변경", askSecret: "웹훅 비밀 키를 변경할까요? 이전 키도 당분간 함께 서명합니다.", overlap: "이전 비밀 키도 {when}까지 함께 서명합니다.",
  deliveries: "전송 내역", address: "주소", event: "이벤트", redeliver: "다시 보내기", redelivered: "다시 보냅니다.", DELIVERY_STATE_PENDING: "대기", DELIVERY_STATE_DELIVERED: "전송됨", DELIVERY_STATE_DEAD: "실패",

  profile: "프로필", zoneNote: "일과 월은 {zone} 시간대를 기준으로 집계합니다.", passwordSet: "비밀번호를 변경했습니다. 다른 세션은 종료되었습니다.", secondFactor: "2단계 인증", factorNote: "로그인할 때 인증 앱의 코드도 입력해야 합니다.", factorSecret: "인증 앱에 이 키를 입력하세요. 지금 한 번만 표시됩니다.",
  openApp: "앱에서 열기", codeNow: "앱에 표시된 코드", turnOn: "사용하기", setUpFactor: "설정하기", removeFactor: "2단계 인증 해제", factorSet: "2단계 인증을 설정했습니다. 다른 세션은 종료되었습니다.", factorGone: "2단계 인증을 해제했습니다.", joinTeam: "팀 참여",
  joinNote: "팀 소유자에게 받은 초대 코드를 입력하세요.", join: "참여하기", joined: "팀에 참여했습니다.", sessions: "로그인 세션", thisOne: "현재 세션", endSession: "종료",

  teamNote: "팀 계정이 함께 사용하는 한도입니다.", noTeamLimits: "팀에 설정된 한도가 없습니다.", members: "구성원", TEAM_ROLE_OWNER: "소유자", TEAM_ROLE_MEMBER: "구성원", TEAM_ROLE_UNSPECIFIED: "구성원", removeMember: "내보내기", askRemoveMember: "{who} 님을 팀에서 내보낼까요? 계정은 그대로 유지됩니다.", noMembers: "아직 구성원이 없습니다.",
  inviteAs: "초대할 역할", invite: "초대하기", accountId: "계정 ID", role: "역할", addMember: "추가", warnings: "알림", warningsNote: "한도의 50%, 80%, 100%를 사용하면 알림을 보냅니다.", emails: "이메일", webhookUrl: "웹훅 주소", since: "{when}부터", newInvitation: "초대 코드", invitationNote: "초대할 사람에게 보내세요. 지금 한 번만 표시되며 한 번만 사용할 수 있습니다.",
  deleteTeam: "팀 삭제", askDeleteTeam: "“{name}” 팀을 삭제할까요? 팀 키는 폐기되고 구성원의 계정은 유지됩니다.", teamsNote: "한도를 함께 사용하는 계정 묶음입니다.", newTeam: "팀 만들기", noTeams: "아직 팀이 없습니다", noTeamsNote: "팀을 만들면 한도를 함께 쓰고, 사람이 떠나도 남는 키를 발급할 수 있습니다.", usdMonth: "월 ${usd}",

  accountsNote: "게이트웨이를 사용하는 계정과 한도를 관리합니다.", newAccount: "계정 만들기", searchAccounts: "이름 또는 이메일", noAccounts: "검색 결과가 없습니다.", ROLE_USER: "사용자", ROLE_ADMIN: "관리자", ROLE_SERVICE: "서비스", disabled: "사용 중지", deleted: "삭제됨", enable: "다시 사용", disable: "사용 중지", askDisable: "{who} 계정을 사용 중지할까요? 모든 키가 2초 안에 거부됩니다.",
  firstPassword: "초기 비밀번호", accountNote: "이메일과 비밀번호가 없으면 API 키로만 사용할 수 있습니다.", withKey: "API 키도 함께 만들기", everyModel: "외부 공급자를 포함한 모든 모델 허용", colleagueKey: "새 계정의 API 키", colleagueKeyNote: "동료에게 전달하세요. 지금 한 번만 표시됩니다.",
  zone: "시간대", unlimitedAccount: "한도 없이 사용", permissions: "권한", everyOperation: "전체 작업", noRules: "아직 사용할 수 있는 모델이 없습니다.", newPermissions: "권한 추가", grant: "허용", credits: "크레딧", creditsNote: "지금까지 {count} 크레딧을 지급했습니다.", amount: "금액", reference: "참조", book: "지급", deleteAccount: "계정 삭제", askDeleteAccount: "{who} 계정을 영구 삭제할까요? 키와 세션이 종료되고, 사용 내역은 이름 없이 장부에 남습니다.", disabledNote: "사용 중지된 계정입니다. 키와 세션이 거부됩니다.",

  budgetsNote: "모델, 태그, 대상별로 사용량의 일부에 한도를 둡니다.", newBudget: "예산 만들기", noBudgets: "아직 예산이 없습니다", noBudgetsNote: "예: OpenAI 대형 모델은 팀 전체에서 월 50달러까지.", owner: "대상", tagIs: "태그 {tag}", deleteBudget: "삭제", askDeleteBudget: "“{name}” 예산을 삭제할까요? 더 이상 제한이 적용되지 않습니다.",
  invitationsNote: "초대 코드가 있으면 한 번 가입할 수 있습니다.", noInvitations: "아직 초대가 없습니다", noInvitationsNote: "가입시킬 사람마다 초대 코드를 하나씩 만드세요.", open: "사용 가능", used: "사용됨",
  providersNote: "모델을 제공하는 곳과 현재 응답 상태입니다.", gateway: "게이트웨이", addProvider: "공급자 추가", addProviderNote: "공급자 키를 환경 변수로 넣고 게이트웨이를 시작하면 모델이 여기에 나타납니다. 다른 공급자와 변수 이름은 gateway/catalogue.yaml에 있습니다.", countModels: "모델 {count}개", catalogueRefused: "최근 카탈로그 변경이 거부되어 이전 카탈로그를 사용하고 있습니다.",
  auditNote: "모든 관리 작업을 일어난 순서대로 보여 줍니다.", noAudit: "아직 기록이 없습니다.", when: "시각", act: "작업", actor: "수행자", details: "상세",
};
