-- What a caller may send before it is known, and how slowly: docs/decisions/0014-bodies.md.
--
-- `gateway.bodies` fills in the numbers, and has a route for each verdict. A worker of Envoy runs this for itself.

local FREE = {{free}}      -- bytes of a body that nobody need be known for
local SHARE = {{share}}    -- bytes of an address's bodies that are on their way, its senders unknown
local LARGEST = {{largest}} -- bytes of a body that is too large, read so that its sender reads the answer
local LARGEST_MESSAGE = {{largest_message}}
local WINDOW_MS = {{window_ms}}
local FLOOR = {{floor}}    -- bytes that must come in a window
local LARGE = {{large}}    -- bytes of a body that delays small requests where it is worked on
local ROOM = {{room}}      -- bytes of a body that is read once there is room for it
local ROOM_READ = {{room_read}} -- bytes of one that came after the wait
local KNOWN_MS = 10000     -- how long a key that held is not asked about again
local MOST_KNOWN = 10000
local NAMESPACE = "moa.body"
local BARE = {GET = true, HEAD = true, OPTIONS = true, DELETE = true} -- methods that usually come without a body

local known, known_count = {}, 0 -- key -> until when
local held = {}                  -- address -> bytes on their way
local waiting = {}               -- request -> {address, bytes, at}
local last_id, swept_at, collected_at = 0, 0, 0

local function settle(id)
  local entry = waiting[id]
  if entry == nil then return end
  waiting[id] = nil
  local left = (held[entry.address] or 0) - entry.bytes
  held[entry.address] = left > 0 and left or nil
end

-- What is older than the slowest body is not there any more.
local function sweep(now)
  if now - swept_at < WINDOW_MS then return end
  swept_at = now
  local oldest = now - (FREE / FLOOR + 2) * WINDOW_MS
  for id, entry in pairs(waiting) do
    if entry.at < oldest then settle(id) end
  end
end

local function take(id, address, bytes, now)
  local entry = waiting[id] or {address = address, bytes = 0, at = now}
  waiting[id] = entry
  entry.bytes = entry.bytes + bytes
  held[address] = (held[address] or 0) + bytes
end

-- Return what is to be kept as long as the request is there: it goes when the caller leaves amid its body.
local function watch_caller(handle, id)
  handle:streamInfo():dynamicMetadata():set(NAMESPACE, "id", id)
  local watched = newproxy(true)
  getmetatable(watched).__gc = function() settle(id) end
  return watched
end

local function crowded(address, most, now)
  if (held[address] or 0) <= most then return false end
  -- Those who left may not have been noticed yet.
  if now - collected_at >= 1000 then
    collected_at = now
    collectgarbage()
  end
  return (held[address] or 0) > most
end

-- An IPv6 caller has 64 bits of addresses to itself.
local function network(address)
  if not address:find(":", 1, true) then return address end
  local mapped = address:match("^::ffff:([%d.]+)$")
  if mapped then return mapped end
  local head, tail = address:match("^(.-)::(.*)$")
  local groups, after = {}, 0
  for group in (head or address):gmatch("[^:]+") do groups[#groups + 1] = group end
  for _ in (tail or ""):gmatch("[^:]+") do after = after + 1 end
  while head and #groups + after < 8 do groups[#groups + 1] = "0" end
  for group in (tail or ""):gmatch("[^:]+") do groups[#groups + 1] = group end
  return table.concat(groups, ":", 1, math.min(4, #groups))
end

-- Say what becomes of the request, and why where it is refused. The route is looked up anew, and with it how long the
-- next byte may take. `metadata` is what of its first route the answer will need.
local function judge(handle, verdict, metadata, why)
  local data = handle:streamInfo():dynamicMetadata()
  if why ~= nil then
    data:set(NAMESPACE, "dialect", metadata.dialect)
    data:set(NAMESPACE, "grpc", metadata.grpc)
    data:set(NAMESPACE, "why", why)
  end
  data:set(NAMESPACE, "verdict", verdict)
  handle:clearRouteCache()
  -- It is this that looks it up: the first such question since the script last waited.
  handle:metadata():get("dialect")
end

local function key_in(given)
  return (given["x-api-key"] or "") .. "\n" .. (given["authorization"] or "") .. "\n" .. (given["x-goog-api-key"] or "")
end

-- Whoever asks is known: the gate that was asked said so, or says nothing against it.
local function welcomed(handle)
  local said = handle:streamInfo():dynamicMetadata():get("envoy.filters.http.ext_authz")
  return said ~= nil and said["known"] == true
end

-- What a caller is told whose key was refused, once it has sent its body; nil where it was not.
local function refusal(handle)
  local said = handle:streamInfo():dynamicMetadata():get("envoy.filters.http.ext_authz")
  return said ~= nil and said["refused"] or nil
end

local function watch_body(handle, headers, given, meta, grpc, served)
  local limit = meta:get("limit") or FREE
  local metadata = {dialect = meta:get("dialect") or "native", grpc = grpc or false}
  local declared = tonumber(given["content-length"] or "")
  if declared == 0 then return judge(handle, "whole", metadata) end
  if not served then return end -- nobody is behind this route
  local now = tonumber(handle:timestamp())
  sweep(now)
  local address = network(given["x-envoy-external-address"] or "")
  local key = limit > FREE and key_in(given) or ""
  local trusted = limit > FREE and (known[key] or 0) > now
  local asks = limit > FREE and not trusted
    and (declared == nil or declared > FREE or (held[address] or 0) >= SHARE / 2)
  local most = asks and SHARE or SHARE / 2
  -- What usually has no body is judged by the bytes that come, if any do: it does not pay for others' bodies.
  local bare = declared == nil and BARE[given[":method"]]
  if not trusted and not bare and crowded(address, most, now) then
    handle:streamInfo():dynamicMetadata():set(NAMESPACE, "why", "crowded")
    return handle:respond({[":status"] = "429", ["retry-after"] = "1"}, "")
  end
  local id
  if not trusted then
    last_id = last_id + 1
    id = last_id
  end
  if asks then
    local data = handle:streamInfo():dynamicMetadata()
    data:set(NAMESPACE, "ask", true)
    data:set(NAMESPACE, "key", key)
  end
  local refusing = limit > FREE and not grpc and declared ~= nil and declared > limit and declared <= LARGEST
  -- What is too large is read to its end and dropped: a caller that is still sending would not read the answer.
  if refusing then
    headers:remove("content-length")
    handle:streamInfo():dynamicMetadata():set("moa", "limit", limit)
    judge(handle, "refusing", metadata, "too_large")
  end
  local waits = not refusing and meta:get("room") and declared ~= nil and declared > ROOM
  if waits then
    handle:streamInfo():dynamicMetadata():set(NAMESPACE, "room", true)
    judge(handle, "waiting", metadata)
  end
  local size, inside, since, dropped, watched, refused_at = 0, 0, now, nil, nil, nil
  for chunk in handle:bodyChunks() do
    local length = chunk:length()
    size, inside = size + length, inside + length
    if id ~= nil and asks and welcomed(handle) then
      settle(id)
      id = nil
    end
    if asks and not dropped and refused_at == nil and refusal(handle) ~= nil then
      if id ~= nil then settle(id) end
      id, refused_at, dropped = nil, now, "unauthenticated"
      judge(handle, "refusing", metadata, dropped)
      handle:streamInfo():dynamicMetadata():set(NAMESPACE, "message", refusal(handle))
    end
    if refused_at ~= nil then chunk:setBytes("") end
    if id ~= nil and length > 0 then
      if not dropped then take(id, address, length, now) end
      if watched == nil and size ~= declared then watched = watch_caller(handle, id) end
      -- What is over the share is not kept; the request ends with its next byte, or for want of one.
      if dropped or crowded(address, most, now) then
        chunk:setBytes("")
        if not dropped then judge(handle, "ended", metadata, "crowded") end
        dropped = "crowded"
      end
    end
    if grpc and size > LARGEST_MESSAGE and not dropped then
      dropped = "too_large"
      judge(handle, "ended", metadata, dropped)
    end
    -- Until the gate has answered, what is kept holds the caller back.
    if refusing and (id == nil or not asks) then chunk:setBytes("") end
    now = tonumber(handle:timestamp())
    if waits and size > ROOM_READ then
      waits, inside, since = false, length, now
      judge(handle, "coming", metadata)
    end
    if refused_at ~= nil and now - refused_at >= WINDOW_MS then judge(handle, "ended", metadata, dropped) end
    if now - since >= WINDOW_MS then
      if inside < FLOOR and not dropped then
        dropped = "late"
        judge(handle, "ended", metadata, dropped)
      end
      inside, since = 0, now
    end
  end
  if id ~= nil then settle(id) end
  -- What was not kept whole must not go on.
  local why = dropped or (refusing and "too_large" or nil)
  if size > LARGE then handle:streamInfo():dynamicMetadata():set(NAMESPACE, "large", true) end
  judge(handle, why and "over" or "whole", metadata, why)
end

-- Remember who was welcomed, and let go of what a refused caller had sent.
local function answered(handle, said)
  if said["id"] then settle(said["id"]) end
  if said["ask"] then
    if welcomed(handle) then
      if known_count >= MOST_KNOWN then known, known_count = {}, 0 end
      if known[said["key"]] == nil then known_count = known_count + 1 end
      known[said["key"]] = tonumber(handle:timestamp()) + KNOWN_MS
    end
  end
end
