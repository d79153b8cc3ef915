-- Paths as clients get them wrong, and as Azure's clients write them.

local EXACT = {{exact}} -- what is served at a fixed path
local PATTERNS = {{patterns}} -- and at one with names in it
local LONGEST = 200

local function served(path)
  if EXACT[path] then return true end
  for _, pattern in ipairs(PATTERNS) do
    if path:find(pattern) then return true end
  end
  return false
end

-- The path that was meant: with a version or without one, once or twice, a slash at the end, a prefix too many.
local function meant(path)
  if #path > LONGEST or path:find("[^%w%-._~/:]") then return nil end
  local function known(candidate)
    if candidate ~= path and served(candidate) then return candidate end
  end
  local plain = path:gsub("/+$", "")
  local found = known(plain) or known("/v1" .. plain) or known("/v1beta" .. plain) or known(plain .. "s")
  local rest = plain:match("^/[^/]+(/.+)$")
  while found == nil and rest ~= nil do
    found = known(rest) or known("/v1" .. rest)
    rest = rest:match("^/[^/]+(/.+)$")
  end
  return found
end

-- Azure's callers name the model in the path, which is told in a header (a model in the body counts before it), and send
-- their key in a header of their own.
local function from_azure(headers)
  headers:remove("moa-deployment")
  local key = headers:get("api-key")
  if key ~= nil then
    local given = headers:get("x-api-key")
    headers:replace("x-api-key", (given == nil or given == key) and key or given .. "," .. key)
    headers:remove("api-key")
  end
  local model = (headers:get(":path") or ""):match("^/openai/deployments/([^/?]+)/")
  if model == nil then return end
  model = model:gsub("%%(%x%x)", function(x) return string.char(tonumber(x, 16)) end)
  if #model <= LONGEST and not model:find("[^\33-\126]") then headers:replace("moa-deployment", model) end
end
