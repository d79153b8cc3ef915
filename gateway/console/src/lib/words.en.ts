export const en = {
  // The frame.
  skip: "Skip to content", menu: "Menu", theme: "Colours", theme_system: "As the system", theme_light: "Light", theme_dark: "Dark",
  logout: "Log out", loading: "Loading…", close: "Close", cancel: "Cancel", goBack: "Go back", save: "Save", saveFile: "Save as a file", saved: "Saved.", create: "Create",
  change: "Change", copy: "Copy", copied: "Copied", copyFailed: "Your browser did not let it be copied. Select it and copy it by hand.",
  copyCommand: "Copy the command", search: "Search", refresh: "Refresh", more: "Show more", hide: "Hide", done: "done", never: "never", actions: "Actions",
  noPage: "There is no such page.", toStart: "To the start", administration: "Administration", apiDocs: "API reference",
  bareStatus: "The gateway answered with HTTP {status} and no reason. Try again; if it stays, tell the operator.", offline: "The gateway cannot be reached. Check your connection and try again.", retryAfter: "Try again in {seconds} s.",
  requestId: "(request {id})", unknown: "unknown", others: "others", nobody: "(none)", unnamed: "Unnamed",

  // Pages.
  start: "Start", chat: "Chat", imagesPage: "Images", models: "Models", keys: "API keys", usage: "Usage", tasks: "Tasks", account: "Account", myAccount: "My account",
  team: "Team", accounts: "Accounts", teams: "Teams", budgets: "Budgets", invitations: "Invitations", providers: "Providers", audit: "Audit log",

  // The door.
  welcome: "Log in to Moa", wrongLogin: "The email or the password is wrong.", welcomeNote: "One gateway to all your models.", login: "Log in", signup: "Sign up", email: "Email", password: "Password",
  newPassword: "New password (8 characters or more)", oldPassword: "Present password", totpCode: "Code of your authenticator", name: "Name", invitation: "Invitation", invitationIfAny: "Invitation, if you have one",
  signupNote: "A new account may use the local models at once.", toLogin: "Log in instead", toSignup: "Create an account", forgot: "Forgot your password?",
  forgotNote: "We mail you a link to set a new one.", forgotDo: "Send the link", forgotDone: "If the address has an account, a link is on its way.",
  resetTitle: "A new password", resetNote: "All your sessions end; log in again with the new one.", resetDo: "Set the password", resetDone: "The password is set. Log in with it.",
  setup: "Set up", setupTitle: "Welcome to Moa", setupNote: "You are the first administrator. Choose the email and password with which you will log in from now on; this link works once.",
  setupDo: "Start", ended: "Your session has ended. Log in again to go on where you were.", codeNeeded: "Enter the code that your authenticator shows now.",
  identities: "Identity provider", identitiesNote: "Log in with {name} in place of your password. Link it within fifteen minutes of logging in.",
  linkWith: "Link {name}", unlink: "Unlink", linked: "Linked. You may log in that way from now on.",
  loginWith: "Log in with {name}", oidcFailed: "Logging in there did not work ({why}). Try again.",

  // Start.
  hello: "Hello", helloName: "Hello, {name}", startNote: "What you may use, and what you have used of it.", steps: "First steps",
  step1: "Try the local model", bundledEnglish: "It is small and speaks English only.", step1Note: "Ask {model} something. It runs on this machine; nothing leaves it.", openChat: "Open the chat", step1Any: "Try a model", step1AnyNote: "Ask something, and see the answer and its cost as they come.",
  step2: "Add a provider's key", step2Note: "Reach OpenAI, Gemini, Anthropic and others by the same address.", openProviders: "Set a key",
  step3: "Make a key for a colleague", step3Note: "An account of their own, with limits that you choose.", openAccounts: "Create an account",
  stepKey: "Make a key", stepKeyNote: "Use Moa from your own programs with any OpenAI client.", openKeys: "To the keys",
  spent30: "Spent in 30 days", requests30: "Requests in 30 days", tokens30: "Tokens in 30 days", modelsYouMayUse: "Models that you may use",
  standing: "Limits", unlimited: "No limits are set.", resets: "Begins anew {when}",

  // Limits.
  limits: "Limits", limitsNote: "Empty means no limit. 0 means nothing at all; a limit a minute or at once is at least 1.", newLimitsNote: "Empty means what new accounts have on this gateway. 0 means nothing at all; a limit a minute or at once is at least 1.", budgetLimitsNote: "At least one.", usd: "US dollars", tokens: "Tokens", images: "Images", requests: "Requests",
  a_day: "{what} a day", a_month: "{what} a month", in_total: "{what} in all", requests_per_minute: "Requests a minute", tokens_per_minute: "Tokens a minute", images_per_minute: "Images a minute", usd_per_minute: "US dollars a minute",
  concurrent_requests: "Requests at once", keyCount: "Keys it may have", ownLimits: "Limits of its own",

  // Keys.
  keysNote: "Each program should have a key of its own, with the limits and the end that it needs.", createKey: "Create a key", noKeys: "No keys yet",
  noKeysNote: "A key lets your programs use Moa with any OpenAI, Google or Anthropic client.", showEnded: "Show revoked and expired keys", noKeyFound: "No key has this name.", noneActive: "No active keys.",
  keyName: "Name", expires: "Expires", created: "Created", lastUsed: "Last used", mayUse: "May use", manages: "Manages", everything: "everything", active: "active", revoked: "revoked", expired: "expired",
  priority: "Priority", asAccount: "As the account", PRIORITY_LOW: "low: yields to others", PRIORITY_NORMAL: "normal", PRIORITY_HIGH: "high", PRIORITY_UNSPECIFIED: "as the account",
  onlyModels: "Only some models", rulesNote: "* stands for anything. No operation chosen means every one.", addRule: "Add a rule", takeAway: "Remove",
  OPERATION_TEXT: "text", OPERATION_IMAGE: "images", OPERATION_TASK: "tasks", managing: "May manage this account: create, change and revoke keys", administering: "May administer the gateway",
  SCOPE_ACCOUNT: "this account", SCOPE_ADMIN: "the gateway", rotate: "Rotate", revoke: "Revoke", askRotate: "Replace “{name}” by a new key? The old one works for one more hour.",
  askRevoke: "Revoke “{name}”? Whatever uses it stops working within two seconds, for good.", gone: "The key was revoked.", secretTitle: "Your new key",
  secretNote: "It is shown this once. Keep it somewhere safe.", haveKept: "I have kept it", tryIt: "Try it",

  // Usage.
  usageNote: "What was used and what it cost, exact to the ledger.", csv: "Download CSV", whose: "Whose", mine: "Mine", myTeam: "My team's", everybody: "Everybody", by: "By", per: "Per", day: "day", month: "month",
  shownAs: "Chart", from: "From", to: "To", model: "Model", key: "Key", tag: "Tag", provider: "Provider", dialect: "API", noUsage: "Nothing was used in this time", noUsageNote: "Choose other dates, or ask a model something.",
  unpriced: "{count} requests have no known price; their cost is not in the sum.", chartOf: "{what} by {group} over time; the table below has the figures", tagNote: "A request with two tags counts in both, so the rows may add up to more than the total.",

  // Models.
  modelsNote: "Every model that you may use, whatever API you call it by.", gives: "Gives", text: "text", image: "images", embedding: "vectors", audio: "audio", video: "video", file: "files", pdf: "PDF", noModels: "No models",
  noModelsNote: "Ask an administrator to let you use some.", noModelsFound: "None matches your search.", status_ready: "ready", status_loading: "loading", status_waiting: "waiting", status_idle: "on demand", status_failed: "failed", status_unavailable: "not available", status_ok: "fine",
  status_not_configured: "not set up", status_fetching: "downloading", status_unknown: "unknown", status_down: "down", status_degraded: "degraded", retired: "Retired {when}.", retires: "Retires {when}.", successor: "Use {model} instead.", context: "Context", longest: "Longest answer",
  price: "Price in / out", priceNote: "Prices are in US dollars per million tokens, as the catalogue has them.", listed: "by size", free: "none", abilities: "Abilities", tryModel: "Try it",

  // Chat.
  newChat: "New chat", untitled: "Untitled", chatsNote: "Conversations are kept in this browser only.", deleteChat: "Delete", askDeleteChat: "Delete this conversation from this browser?", history: "Conversations", notKept: "Your browser has no room to keep this conversation.",
  secondModel: "Second model", compareWith: "Compare with…", settings: "Settings", conversation: "Conversation", chatEmpty: "Ask anything", chatEmptyNote: "Attach pictures and files, compare two models, or copy the code of any answer.",
  idea1: "Why is the sky blue?", idea2: "Write a haiku about Seoul in autumn.", idea3: "What can you do?", you: "You", message: "Message", send: "Send", ask: "Ask something…", stop: "Stop", attach: "Attach",
  fileTooLarge: "{name} is no picture, or larger than 10 MB.", fileUnknown: "{name} is no picture, PDF or text.", answering: "The answer is being written.", answered: "The answer is complete.", answer: "Answer",
  waiting: "Waiting for the first word…", reasoning: "Reasoning", calls: "Calls {name}", toolResult: "Result of the tool", giveResults: "Send the results", tryAgain: "Try again", regenerate: "Regenerate", stopped: "Stopped.",
  broken: "The connection broke off. What had come is kept.", tokensInOut: "{in} → {out} tokens", costUnknown: "cost unknown", firstAfter: "first after {time}", tokensASecond: "{count} tokens/s", cutOff: "cut off at the limit", before: "The one before", after: "The next one",
  noNumber: "{what}: write a number, such as 0.5 or 40.", emptyAnswer: "The model answered with nothing.", seeUsage: "what came is charged: see Usage",
  goOnWith: "Go on with this one", notJson: "Tools and schema must be JSON. Look for a missing quote or comma.", system: "Instructions", temperature: "Temperature", topP: "Top p", maxTokens: "Longest answer (tokens)", seed: "Seed", effort: "Reasoning effort", asModel: "As the model",
  tools: "Tools (JSON)", schema: "Answer's JSON schema", showCode: "Show the code", codeNote: "Runs as it is with a key in MOA_API_KEY.", besideNote: "It reads these files from the folder that it runs in:", leavesNote: "This client's API has no field for {names}; that is left out here.",

  // Images.
  imagesNote: "Describe a picture and watch it come.", prompt: "Description", promptIdea: "a red circle above a blue square", fromPicture: "Start from a picture", drawMask: "Draw a mask", mask: "Mask", moreSettings: "More settings", width: "Width", height: "Height", random: "random",
  count: "How many", stepsMade: "{count} steps", stepsCount: "Steps", guidance: "Guidance", strength: "Strength", negative: "What it must not show", scale: "Scale", addLora: "Add a LoRA", edit: "Edit", vary: "Vary", make: "Create", gallery: "Gallery", preview: "Preview", about: "about {time} more",
  stepOf: "step {step} of {steps}", begins: "starting…", loadingModel: "loading the model, {percent} %", storing: "storing…", queued: "place {place} in the queue", failed: "It failed.", picture: "Picture", sameAgain: "Use these settings", variationOf: "Variation: {prompt}",
  noPictures: "No pictures yet", noPicturesNote: "Describe one, and it appears here while it is made.", galleryNote: "Pictures stay here as long as the gateway keeps tasks. Save those that you want to keep.", maskNote: "Paint over what should change. Everything else stays as it is.",
  maskKeys: "Mask: arrow keys move the pen, space paints, shift and an arrow draws a line", pen: "Pen size", clear: "Clear", useMask: "Use the mask",

  // Tasks.
  tasksNote: "Work that goes on in the background, as it happens.", asked: "Asked for", state: "State", begun: "Begun", look: "Look", cancelTask: "Cancel", askCancel: "Cancel this task? What was not done is not charged.", cancelled: "Cancelled.", progress: "Progress", task: "Task", deskTask: "Desk",
  noTasks: "No tasks yet", noTasksNote: "Pictures that you create run as tasks and appear here.", openImages: "Create a picture", TASK_STATE_PENDING: "waiting", TASK_STATE_SUBMITTED: "waiting", TASK_STATE_RUNNING: "running", TASK_STATE_SUCCEEDED: "done", TASK_STATE_FAILED: "failed", TASK_STATE_CANCELLED: "cancelled",
  webhooks: "Webhooks", webhooksNote: "This secret verifies the signatures of what the gateway sends to you.", showSecret: "Show the secret", rotateSecret: "Change the secret", askSecret: "Change the secret of your webhooks? The old one signs too for a while.", overlap: "The old one signs too until {when}.",
  deliveries: "Deliveries", address: "Address", event: "Event", redeliver: "Send again", redelivered: "It is sent again.", DELIVERY_STATE_PENDING: "waiting", DELIVERY_STATE_DELIVERED: "delivered", DELIVERY_STATE_DEAD: "failed",

  // Account.
  profile: "Profile", zoneNote: "Days and months are counted in the time zone {zone}.", passwordSet: "The password is set. Other sessions have ended.", secondFactor: "Second factor", factorNote: "With one, logging in takes a code of an authenticator app, too.", factorSecret: "Enter this secret in your authenticator app; it is shown this once.",
  openApp: "Open in an app", codeNow: "Code that the app shows now", turnOn: "Turn on", setUpFactor: "Set up", askRemoveFactor: "Remove the second factor of {who}? The password alone logs in then.", removeFactor: "Remove the second factor", factorSet: "The second factor is on. Other sessions have ended.", factorGone: "The second factor is removed.", joinTeam: "Join a team",
  joinNote: "With an invitation of one of its owners.", join: "Join", joined: "You are in the team.", sessions: "Sessions", thisOne: "this one", endSession: "End",

  // Team.
  teamNote: "What its accounts use together.", noTeamLimits: "The team has no limits of its own.", members: "Members", TEAM_ROLE_OWNER: "owner", TEAM_ROLE_MEMBER: "member", TEAM_ROLE_UNSPECIFIED: "member", removeMember: "Remove", askRemoveMember: "Take {who} out of the team? Their account goes on by itself.", noMembers: "Nobody yet.",
  inviteAs: "Invite as", invite: "Invite", accountId: "Account", role: "Role", addMember: "Add", warnings: "Warnings", warningsNote: "Sent when 50, 80 and 100 percent of a limit are used.", emails: "Emails", webhookUrl: "Webhook", since: "since {when}", newInvitation: "Your invitation", invitationNote: "Send it to whom you invite. It is shown this once and works once.",
  deleteTeam: "Delete the team", askDeleteTeam: "Delete “{name}”? Its own keys are revoked; its members go on by themselves.", teamsNote: "Accounts that share limits.", newTeam: "New team", noTeams: "No teams yet", noTeamsNote: "A team gives accounts shared limits, and keys that stay when people leave.",

  // Accounts.
  accountsNote: "Who uses the gateway, and how much they may.", newAccount: "New account", searchAccounts: "Name or email", noSuchAccount: "No account has this name, email or id. Choose one of the list.", manyAccounts: "Several accounts have this name: give the email or the id.", noAccounts: "Nobody matches.", ROLE_USER: "user", ROLE_ADMIN: "administrator", ROLE_SERVICE: "service", disabled: "disabled", deleted: "deleted", enable: "Enable", disable: "Disable", askDisable: "Disable {who}? All their keys are refused within two seconds.",
  firstPassword: "First password", accountNote: "Without an email and password the account works by its keys alone.", withKey: "Create a key for it at once", everyModel: "May use every model, those of providers too", colleagueKey: "The new account's key", colleagueKeyNote: "Hand it to your colleague. It is shown this once.",
  zone: "Time zone", zoneChanges: "Days are counted in {zone} until {when}.", zoneNext: "From {when} on: {zone}.", unlimitedAccount: "No limits at all", permissions: "Permissions", everyOperation: "everything", noRules: "It may use no model yet.", newPermissions: "New permissions", grant: "Grant", credits: "Credits", creditsNote: "{count} granted in all.", amount: "Amount", reference: "Reference", book: "Book", deleteAccount: "Delete", askDeleteAccount: "Delete {who} for good? Its keys and sessions end; what it used stays in the books without a name.", disabledNote: "This account is disabled: its keys and sessions are refused.",

  // Budgets, invitations, providers, audit.
  budgetsNote: "Limits on a part of what is asked for: by model, tag and owner.", newBudget: "New budget", noBudgets: "No budgets yet", noBudgetsNote: "For example: OpenAI's large models, 50 dollars a month for the whole team.", owner: "For", aTeam: "a team", anAccount: "an account", aKey: "a key", keyId: "Key’s id", signedBy: "Webhooks are signed with", tagIs: "tag {tag}", deleteBudget: "Delete", askDeleteBudget: "Delete the budget “{name}”? Nothing is held by it any more.",
  invitationsNote: "Whoever has one may sign up, once.", noInvitations: "No invitations yet", noInvitationsNote: "Make one for each person whom you want to let in.", open: "open", used: "used", usedBy: "Used by", noTeam: "no team", orLink: "Or as a link", copyLink: "Copy the link",
  providersNote: "Where models come from, and whether they answer.", gateway: "Gateway", countModels: "Models: {count}", catalogueRefused: "The last change of the catalogue was refused; the one before is in use.",
  requestLog: "Request log", requestLogNote: "Requests of the teams that have theirs logged, the newest first.", status: "Status", errorWord: "Error", requestIdWord: "Request id", took: "Took", dropped: "{count} requests were not logged, because there was no room.", noLogged: "Nothing is logged", noLoggedNote: "A team's owner or an administrator switches its log on.",
  loggedRequest: "Request", attempts: "Who was asked", content: "What was said", noContent: "Prompts and answers are not kept.", unreadable: "What was said cannot be read: its key is lost.", deleteLogged: "Delete", askDeleteLogged: "Delete this request from the log?",
  requestLogTeam: "Who asked what of which model, and what became of it. Owners and administrators read it.", logOn: "Log this team's requests", logContent: "Keep prompts and answers too, encrypted", logDays: "Keep for days", readLog: "Read the log",
  auditNote: "Every act of administration, in the order it happened.", noAudit: "Nothing yet.", when: "When", act: "Act", actor: "Who", details: "Details",

  // Providers' health and keys, virtual models, the catalogue, inference.
  routes: "Virtual models", routesNote: "Names over several models, and which of them their requests went to.", noRoutes: "No virtual models", noRoutesNote: "A row of the catalogue makes one: a name that callers use over several models.",
  canary: "canary", shadow: "shadow", conditional: "for some requests", timeSpan: "Over which time", lastHour: "Last hour", lastDay: "Last day", errorsSeen: "Failures", fallbacksSeen: "Answered by others", firstP50: "First token p50", firstP95: "First token p95",
  health_ok: "answers", health_degraded: "has trouble", health_idle: "not asked of late", health_unconfigured: "not configured", breakerOpen: "left alone", triedAgain: "tried again {when}", requestsLeft: "{left} of {most} requests a minute left", tokensLeft: "{left} of {most} tokens a minute left",
  makes_text: "text", makes_image: "images", makes_embedding: "vectors", makes_vision: "vision", KEY_SOURCE_UNSPECIFIED: "", KEY_SOURCE_NONE_NEEDED: "It needs no key.", KEY_SOURCE_ENVIRONMENT: "Its key is from the environment.", KEY_SOURCE_STORED: "Its key is stored here.",
  storedKey: "{variable} is stored: it ends in {last}, set {when}.", storedUnreadable: "What is stored cannot be decrypted: the operator's key that encrypted it is missing.", needsAddress: "Has no address: set it in the catalogue.", needsKeys: "Needs {names}.", orElse: ", or ", testNow: "Test now", testing: "Testing…", setProviderKey: "Set the key", replaceProviderKey: "Replace the key", deleteProviderKey: "Delete the key", askDeleteProviderKey: "Delete the stored key of {name}? Every provider with the same variable loses it within twenty seconds.",
  searchProviders: "Name or address", providerKeySet: "The key is stored.", providerKeysNote: "A key that is set here is stored encrypted, never shown again, and used within twenty seconds. The environment wins over it, and is the way for production.", providerKeyNote: "For {name} and every provider of the catalogue that reads the same variable.", environmentWins: "The environment has a key, which wins: what you store is used once it is gone.", credentialForm: "By",
  TEST_OUTCOME_ANSWERED: "It answers", TEST_OUTCOME_NOT_CONFIGURED: "Not configured", TEST_OUTCOME_FAILED: "It failed", TEST_OUTCOME_UNTRIED: "Not tried",
  catalogue: "Catalogue", catalogueNote: "Providers and models, as the file has them and as providers list them.", catalogueRows: "Models: {count}", rowKind: "Kind", rowState: "State", ROW_KIND_MODEL: "row", ROW_KIND_WILDCARD: "wildcard", ROW_KIND_DISCOVERED: "discovered", ROW_KIND_VIRTUAL: "virtual", configuredRow: "offered", hiddenRow: "hidden", unpricedRow: "no price", moreRows: "{count} more; search for them.",
  catalogueFile: "The file", discard: "Discard", askDiscard: "Discard what you have written, and read the file anew?", checking: "Checking…", previewChanges: "Preview", applyChanges: "Apply", catalogueApplied: "The catalogue is changed. All parts go by it within ten seconds.", catalogueMoved: "The file was changed since you opened it. The list is of what your text would change of the newer file: it takes back what others changed, unless you have it too.", takeNewer: "Take the newer file", keepMine: "Keep my text", changesCount: "Changes: {count}", CHANGE_KIND_ADDED: "new", CHANGE_KIND_REMOVED: "goes", CHANGE_KIND_CHANGED: "changes", what_provider: "provider", what_model: "model", what_route: "virtual model",
  inference: "Inference", inferenceNote: "Models that run on machines of your own, as they work.", inferenceAway: "The inference service does not answer.", memoryFree: "{free} free", memoryOf: "of {total}", noEngines: "No model is in memory", noEnginesNote: "A model is loaded by the first request for it.", queueWaiting: "Waiting", queueRunning: "Running", queueWork: "Work left", stepRate: "Steps a second", batchFill: "Rows a step", busyPart: "Busy",
};
