-- What every request passes first, REST and gRPC alike.

-- A caller's own id of the request is taken where it is up to 128 visible ASCII characters; else Envoy's stays.
local function take_request_id(headers)
  local given = headers:get("x-moa-callers-request-id") or ""
  if #given <= 128 and given:find("^[\33-\126]+$") then headers:replace("x-request-id", given) end
end

-- The cookies of log-ins that are under way go where those are completed, and no other cookie goes anywhere.
local function pass_oidc(headers, cookie)
  headers:remove("cookie")
  local path = headers:get(":path") or ""
  if not (path:find("^/auth/oidc/") or path:find("^/account/login/oidc") or path:find("^/account/identities")) then return end
  local kept = {}
  for pair in cookie:gmatch("[^;%s]+") do
    if pair:find("^moa_oidc_") or pair:find("^__Host%-moa_oidc_") then kept[#kept + 1] = pair end
  end
  if #kept > 0 then headers:replace("cookie", table.concat(kept, "; ")) end
end

-- The console keeps its session in a cookie that no script can read. It counts beside a header alone that no link and no form
-- sends: a page of another origin that would send it asks first, and is refused, because nothing here takes cookies from others.
local function take_session(headers)
  local cookie = headers:get("cookie")
  if cookie == nil then return end
  pass_oidc(headers, cookie)
  if headers:get("moa-console") == nil or (headers:get("sec-fetch-site") or "same-origin") ~= "same-origin" then return end
  if headers:get("x-api-key") or headers:get("authorization") or headers:get("x-goog-api-key") then return end
  -- Over TLS the name is one that browsers let no other host set.
  local name = headers:get("x-forwarded-proto") == "https" and "__Host%-moa%-session" or "moa%-session"
  local token = ("; " .. cookie .. ";"):match("; " .. name .. "=(ses%-[%w_-]+);")
  if token ~= nil then headers:replace("x-api-key", token) end
end

-- Tell whether the request may go on. Two Host lines, which Envoy joins with a comma, would be read as one host here and
-- as another by whoever stands before or behind.
local function arrived(handle)
  local headers = handle:headers()
  take_request_id(headers)
  -- No tunnel is opened here: what came of one would be waited for as a body is.
  if headers:get(":method") == "CONNECT" then
    handle:respond({[":status"] = "405", ["allow"] = "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"}, "")
    return false
  end
  from_azure(headers)
  take_session(headers)
  -- The answer to a HEAD has no body, whoever words it: on a kept connection it would be read as the next answer.
  if headers:get(":method") == "HEAD" then
    handle:streamInfo():dynamicMetadata():set("moa", "head", true)
    if handle:metadata():get("heads") then headers:replace(":method", "GET") end
  end
  if not (headers:get(":authority") or ""):find("[,%s]") then return true end
  handle:respond({[":status"] = "400"}, "the request could not be read")
  return false
end
