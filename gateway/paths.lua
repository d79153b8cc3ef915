-- Paths as clients get them wrong, and as Azure's clients write them.

-- Interpreted alone: a request passes once through code that calls Envoy at every step, which LuaJIT cannot compile and
-- tries to again and again: a call of mprotect for each third request, and a twentieth of Envoy's CPU.
if jit then jit.off() end

local EXACT = {{exact}} -- what is served at a fixed path, and the methods of each
local PATTERNS = {{patterns}} -- and at one with names in it
local UNSERVED = {{unserved}} -- what to do instead, by how vendors' paths begin that are not served
local LONGEST = 200

-- The methods that are served at a path, between spaces; nil where none is.
local function methods_of(path)
  if EXACT[path] then return EXACT[path] end
  for _, known in ipairs(PATTERNS) do
    if path:find(known[1]) then return known[2] end
  end
end

-- What a path may have been meant as: with a version or without one, once or twice, a slash at the end, a prefix too
-- many, or `/admin` for `/account`.
local function candidates(path)
  local plain = path:gsub("/+$", "")
  local found = {plain, "/v1" .. plain, "/v1beta" .. plain}
  if EXACT[plain .. "s"] then found[#found + 1] = plain .. "s" end
  local rest = plain:match("^/[^/]+(/.+)$")
  while rest ~= nil do
    found[#found + 1] = rest
    found[#found + 1] = "/v1" .. rest
    rest = rest:match("^/[^/]+(/.+)$")
  end
  -- Administrators and owners of teams have paths in common.
  local area, below = plain:match("^/(%l+)(/.+)$")
  if area == "admin" then found[#found + 1] = "/account" .. below end
  if area == "account" then found[#found + 1] = "/admin" .. below end
  return found
end

-- What to do instead of a request to a vendor's path that is not served; nil where no such path is known.
local function instead_of(path)
  while path ~= "" do
    if UNSERVED[path] then return UNSERVED[path] end
    path = path:match("^(.*)/[^/]*$") or ""
  end
end

-- The path that was meant, which takes the caller's method; where there is none, a path with the methods that it takes.
local function meant(method, path)
  if #path > LONGEST or path:find("[^%w%-._~/:]") then return nil end
  local other
  for _, candidate in ipairs(candidates(path)) do
    local methods = candidate ~= path and methods_of(candidate)
    if methods and methods:find(" " .. method .. " ", 1, true) then return candidate end
    if methods and other == nil then other = methods:match("^ (.-) $"):gsub(" ", " or ") .. " " .. candidate end
  end
  -- The path itself is served, by other methods.
  local own = methods_of(path)
  if own ~= nil then return (own:match("^ (.-) $"):gsub(" ", " or ")) end
  return other
end

-- What the caller of a path that is not served can do.
local function next_step(path, right)
  if #path > LONGEST then return nil end
  local plain = path:gsub("/+$", "")
  local step = not methods_of(plain) and instead_of(plain)
  if step then return step end
  if right ~= nil and right:find("/", 1, true) then return "use " .. right end
  for _, candidate in ipairs(candidates(path)) do
    step = instead_of(candidate)
    if step ~= nil then return step end
  end
end

-- Azure's callers name the model in the path, which is told in a header (a model in the body counts before it), and send
-- their key in a header of their own.
local function from_azure(headers, given)
  local key = given["api-key"]
  if key ~= nil then
    local other = given["x-api-key"]
    given["x-api-key"] = (other == nil or other == key) and key or other .. "," .. key
    given["api-key"] = nil
    headers:replace("x-api-key", given["x-api-key"])
    headers:remove("api-key")
  end
  local model = (given[":path"] or ""):match("^/openai/deployments/([^/?]+)/")
  if model == nil then return end
  model = model:gsub("%%(%x%x)", function(x) return string.char(tonumber(x, 16)) end)
  if #model <= LONGEST and not model:find("[^\33-\126]") then
    headers:replace("moa-deployment", model)
    given["moa-deployment"] = model
  end
end
