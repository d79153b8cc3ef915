-- What every request passes first, REST and gRPC alike.

-- Return all headers of a request. They are read once, since Envoy takes longer for one question than for the next header. What
-- comes more than once is joined by commas, as Envoy does.
local function all_of(headers)
  local given = {}
  for key, value in pairs(headers) do
    local before = given[key]
    given[key] = before and before .. "," .. value or value
  end
  return given
end

-- Change a header, and what was read of it.
local function put(headers, given, key, value)
  headers:replace(key, value)
  given[key] = value
end

local function drop(headers, given, key)
  headers:remove(key)
  given[key] = nil
end

-- A caller's own id of the request is taken where it is up to 128 visible ASCII characters; else Envoy's stays.
local function take_request_id(headers, given)
  local own = given["x-moa-callers-request-id"]
  if own ~= nil and #own <= 128 and own:find("^[\33-\126]+$") then put(headers, given, "x-request-id", own) end
end

-- The cookies of log-ins that are under way go where those are completed, and no other cookie goes anywhere.
local function pass_oidc(headers, given, cookie)
  drop(headers, given, "cookie")
  local path = given[":path"] or ""
  if not (path:find("^/auth/oidc/") or path:find("^/account/login/oidc") or path:find("^/account/identities")) then return end
  local kept = {}
  for pair in cookie:gmatch("[^;%s]+") do
    if pair:find("^moa_oidc_") or pair:find("^__Host%-moa_oidc_") then kept[#kept + 1] = pair end
  end
  if #kept > 0 then put(headers, given, "cookie", table.concat(kept, "; ")) end
end

-- The console keeps its session in a cookie that no script can read. It counts beside a header alone that no link and no form
-- sends: a page of another origin that would send it asks first, and is refused, because nothing here takes cookies from others.
local function take_session(headers, given)
  local cookie = given["cookie"]
  if cookie == nil then return end
  pass_oidc(headers, given, cookie)
  if given["moa-console"] == nil or (given["sec-fetch-site"] or "same-origin") ~= "same-origin" then return end
  if given["x-api-key"] or given["authorization"] or given["x-goog-api-key"] then return end
  -- Over TLS the name is one that browsers let no other host set.
  local name = given["x-forwarded-proto"] == "https" and "__Host%-moa%-session" or "moa%-session"
  local token = ("; " .. cookie .. ";"):match("; " .. name .. "=(ses%-[%w_-]+);")
  if token ~= nil then put(headers, given, "x-api-key", token) end
end

-- Return the headers of a request that may go on, as they are by then. Two Host lines, which Envoy joins with a comma, would be read as one host here and
-- as another by whoever stands before or behind.
local function arrived(handle, headers)
  local given = all_of(headers)
  take_request_id(headers, given)
  -- No tunnel is opened here: what came of one would be waited for as a body is.
  if given[":method"] == "CONNECT" then
    handle:respond({[":status"] = "405", ["allow"] = "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"}, "")
    return nil
  end
  from_azure(headers, given)
  take_session(headers, given)
  -- The answer to a HEAD has no body, whoever words it: on a kept connection it would be read as the next answer.
  if given[":method"] == "HEAD" then
    handle:streamInfo():dynamicMetadata():set("moa", "head", true)
    if handle:metadata():get("heads") then put(headers, given, ":method", "GET") end
  end
  if not (given[":authority"] or ""):find("[,%s]") then return given end
  handle:respond({[":status"] = "400"}, "the request could not be read")
  return nil
end
