-- Every failure in the words of the route's dialect: a service's, and Envoy's own.
--
-- A template: `gateway.script` fills in the tables between `{{` and `}}` from `services.common.dialects`, where
-- each envelope is written once. Runs first in the chain, so it sees an answer last. It buffers failures only.

-- dialect -> { status[reason], words..., body(values) }
local DIALECTS = {{dialects}}

-- What a status without a reason means: one that Envoy gave, or gRPC's own library.
local BY_STATUS = {{by_status}}
local BY_GRPC = {{by_grpc}}

-- Sentences for failures that no service worded. Envoy's own prose never leaves.
local SENTENCE = {{sentences}}

local NOT_ASCII = {{not_ascii}}

local LISTED = "GET /openapi.json lists the paths that there are"

-- Reasons that the same request will meet again, whoever sends it again by itself.
local LASTING = {{lasting}}

-- What the refusal of a body is told as; a late one is told as what Envoy made of it.
local REFUSED = {crowded = "rate_limited", too_large = "too_large", unauthenticated = "unauthenticated"}

local LEFTOVERS = {"grpc-status", "grpc-message", "grpc-status-details-bin", "x-moa-reason", "x-moa-param",
  "x-moa-edge", "grpc-encoding", "grpc-accept-encoding"}

local SAID_BESIDE = {["x-moa-status"] = ":status", ["x-moa-length"] = "content-length"}

local ESCAPES = {['"'] = '\\"', ["\\"] = "\\\\", ["\n"] = "\\n", ["\r"] = "\\r", ["\t"] = "\\t"}

local function quote(text)
  return '"' .. text:gsub('[%c"\\]', function(c)
    return ESCAPES[c] or string.format("\\u%04x", c:byte())
  end) .. '"'
end

local function decoded(text)
  return (text:gsub("%%(%x%x)", function(x) return string.char(tonumber(x, 16)) end))
end

-- The query's `key` and the path without it. Keys are compared, not shown: a bad one only has to stay bad.
local function without_key(path)
  local head, query = path:match("^([^?]*)%?(.*)$")
  if query == nil then return path, nil end
  local kept, key = {}, nil
  for pair in query:gmatch("[^&]+") do
    local value = pair:match("^key=(.*)$")
    if value == nil and pair ~= "key" then
      kept[#kept + 1] = pair
    else
      local this = decoded((value or ""):gsub("%+", " ")):gsub("[^%w%-%._~]", "?")
      -- Two different keys are refused, as two different headers are: together they match none.
      if key ~= nil and key ~= this then this = key .. "," .. this end
      key = this
    end
  end
  return #kept > 0 and head .. "?" .. table.concat(kept, "&") or head, key
end

-- What was found out of names and values of headers, which are the same in most requests: to look through a text costs more
-- than to find it here. Each is bounded, and begins anew where it is full.
local MOST_MET, LONGEST_MET = 1000, 256
local names, names_count = {}, 0 -- name -> "pseudo", "odd" or "plain"
local plain, plain_count = {}, 0 -- values of printable ASCII characters

local function kind_of(name)
  local kind = names[name]
  if kind ~= nil then return kind end
  kind = "plain"
  if name:byte() == 58 then -- a pseudo-header's colon
    kind = "pseudo"
  elseif name:find("[^%w_.-]") or name:find("%-bin$") or name:find("^grpc%-") then
    kind = "odd"
  end
  if names_count >= MOST_MET then names, names_count = {}, 0 end
  if #name <= LONGEST_MET then names[name], names_count = kind, names_count + 1 end
  return kind
end

local function is_plain(value)
  if plain[value] then return true end
  if value:find("[^\32-\126]") then return false end
  if plain_count >= MOST_MET then plain, plain_count = {}, 0 end
  if #value <= LONGEST_MET then plain[value], plain_count = true, plain_count + 1 end
  return true
end

-- Headers that HTTP allows and gRPC does not would fail the whole call: their names, their bytes, or what gRPC takes
-- them for. A REST caller's are dropped; nothing reads them. Return the name of one that would be read, were it ASCII.
local function drop_ungrpc(headers, given)
  local odd, unread = nil, nil
  for key, value in pairs(given) do
    local kind = kind_of(key)
    -- The id of the request is Envoy's own, or was looked at.
    if kind == "odd" or kind == "plain" and key ~= "x-request-id" and not is_plain(value) then
      odd = odd or {}
      odd[#odd + 1] = key
      if key == "idempotency-key" or key:find("^moa%-") and kind ~= "odd" then unread = key end
    end
  end
  for _, key in ipairs(odd or {}) do drop(headers, given, key) end
  return unread
end

-- Dropped in silence, a request would be done twice under its idempotency key, or count on no budget of its tags.
local function refuse_unread(handle, name)
  local why = NOT_ASCII:gsub("<name>", name)
  handle:respond({[":status"] = "400", ["x-moa-reason"] = "invalid_field", ["x-moa-param"] = name, ["grpc-message"] = why}, "")
end

local function move_key(headers, given)
  local path = given[":path"] or ""
  if not path:find("?", 1, true) then return end
  local rest, key = without_key(path)
  if key == nil then return end
  local other = given["x-goog-api-key"]
  if other ~= nil and other ~= key then key = other .. "," .. key end
  put(headers, given, "x-goog-api-key", key)
  put(headers, given, ":path", rest)
end

function envoy_on_request(handle)
  local headers = handle:headers()
  local given = arrived(handle, headers)
  if given == nil then return end
  local meta = handle:metadata()
  local grpc, served = meta:get("grpc"), meta:get("served")
  -- Calls over gRPC stay what they are.
  if not grpc then
    local unread = drop_ungrpc(headers, given)
    if unread ~= nil then return refuse_unread(handle, unread) end
    move_key(headers, given)
    local own_name = meta:get("request_id")
    if own_name then
      local data = handle:streamInfo():dynamicMetadata()
      data:set("moa", "request_id", given["x-request-id"] or "")
      data:set("moa", "request_id_header", own_name)
    end
    if not served then
      local path, data = (given[":path"] or ""):match("^[^?]*"), handle:streamInfo():dynamicMetadata()
      local right = meant(given[":method"] or "", path)
      if right ~= nil then data:set("moa", "meant", right) end
      data:set("moa", "step", next_step(path, right) or LISTED)
    end
  end
  if not (grpc and meta:get("talks")) then watch_body(handle, headers, given, meta, grpc, served) end
end

local function size_of(bytes)
  local mega = bytes / 1048576
  return mega >= 1 and string.format("%.0f MiB", mega) or string.format("%.0f KiB", bytes / 1024)
end

local function reason_of(headers, status)
  local reason = headers:get("x-moa-reason")
  if reason ~= nil then return reason end
  -- `x-moa-edge` marks an answer that Envoy itself made; a gRPC status beside it is only a translation.
  local grpc = tonumber(headers:get("grpc-status") or "")
  if grpc ~= nil and headers:get("x-moa-edge") == nil then return BY_GRPC[grpc] or "internal" end
  return BY_STATUS[status] or (status >= 500 and "unavailable" or "malformed")
end

-- A caller over gRPC is answered in gRPC's words.
local function answer_grpc(headers, why, message)
  headers:remove("x-moa-edge")
  local reason = REFUSED[why]
  if reason == nil then return end
  headers:replace("grpc-status", reason == "unauthenticated" and "16" or "8")
  headers:replace("grpc-message", message or SENTENCE[reason])
  headers:replace("x-moa-reason", reason)
end

-- Of a service that nobody here offers, Envoy itself says that it is unimplemented, and no more.
local function answer_nobody(headers)
  local reason = BY_GRPC[tonumber(headers:get("grpc-status") or "")] or "internal"
  headers:remove("x-moa-edge")
  if (headers:get("grpc-message") or "") == "" then headers:replace("grpc-message", SENTENCE[reason]) end
  headers:replace("x-moa-reason", reason)
end

function envoy_on_response(handle)
  local headers, data = handle:headers(), handle:streamInfo():dynamicMetadata()
  local said = data:get(NAMESPACE) or {}
  answered(handle, said)
  if said["grpc"] or handle:metadata():get("grpc") then return answer_grpc(headers, said["why"], said["message"]) end
  local status = tonumber(headers:get(":status")) or 0
  local asked = data:get("moa")
  -- What the dialect calls the request's id, as the first route said: a body that is refused is answered by another.
  if asked and asked.request_id_header then headers:replace(asked.request_id_header, asked.request_id) end
  if status < 400 then
    -- The transcoder leaves traces of its source behind; a gRPC caller's are meant for it.
    local kind = headers:get("content-type") or ""
    if kind:find("application/grpc", 1, true) ~= 1 then
      for _, name in ipairs(LEFTOVERS) do headers:remove(name) end
    elseif headers:get("x-moa-edge") ~= nil then
      answer_nobody(headers)
    end
    -- Proxies between would keep events until they are many.
    if kind:find("text/event-stream", 1, true) == 1 then
      headers:replace("cache-control", "no-cache")
      headers:replace("x-accel-buffering", "no")
    end
    -- A status other than 200 and a length, of a service whose answer gRPC could not say them for.
    for header, meant in pairs(SAID_BESIDE) do
      local value = headers:get(header)
      if value ~= nil then
        headers:replace(meant, value)
        headers:remove(header)
      end
    end
    if asked and asked.head then
      for chunk in handle:bodyChunks() do chunk:setBytes("") end
    end
    return
  end
  local dialect = DIALECTS[said["dialect"] or handle:metadata():get("dialect") or ""] or DIALECTS["native"]
  local known = headers:get("x-moa-reason") ~= nil
  local reason = reason_of(headers, status)
  if status == 408 and REFUSED[said["why"]] then reason, known = REFUSED[said["why"]], false end
  if dialect.status[reason] == nil then reason, known = "internal", false end
  local message = known and decoded(headers:get("grpc-message") or "") or said["message"] or ""
  if message == "" then message = SENTENCE[reason] or SENTENCE["internal"] end
  if not known and asked then
    if reason == "method_not_allowed" and asked.meant then message = message .. "; use " .. asked.meant end
    if reason == "not_found" and asked.step then message = message .. "; " .. asked.step end
  end
  if not known and reason == "too_large" then
    message = message .. "; at most " .. size_of(asked and asked.limit or handle:metadata():get("limit") or FREE)
      .. " are taken here"
  end
  local param = known and headers:get("x-moa-param") or nil
  local final = dialect.status[reason]
  local text = dialect.body(reason, {
    message = quote(message),
    param = param and quote(decoded(param)) or "null",
    field = quote(param and decoded(param) or ""),
    status = tostring(final),
    request_id = quote(asked and asked.request_id or ""),
  })
  local length = #text
  if not (asked and asked.head) then
    local body = handle:body(true) -- true: a body also where there was none
    length = body:setBytes(text)
    headers = handle:headers() -- the earlier object died when `body` yielded
  end
  headers:replace(":status", tostring(final))
  headers:replace("content-type", "application/json")
  headers:replace("content-length", tostring(length))
  if not known and final == 503 then headers:replace("retry-after", "1") end
  -- What is free again in a moment may be sent again then: clients of OpenAI and Anthropic wait for up to a minute.
  local wait = tonumber(headers:get("retry-after") or "")
  local soon = wait and wait <= 60
  if final < 500 and LASTING[reason] and not soon then headers:replace("x-should-retry", "false") end
  for _, name in ipairs(LEFTOVERS) do headers:remove(name) end
end
