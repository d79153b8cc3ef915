-- A caller's own id of the request is taken where it is up to 128 visible ASCII characters; else Envoy's stays.
local function take_request_id(headers)
  local given = headers:get("x-moa-callers-request-id") or ""
  if #given <= 128 and given:find("^[\33-\126]+$") then headers:replace("x-request-id", given) end
end
