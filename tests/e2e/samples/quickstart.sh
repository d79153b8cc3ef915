curl -X POST https://api.soonsoon.ai/generate/text \
-H "Content-Type: application/json" \
-H "X-API-Key: YOUR_API_KEY" \
-d '{
"messages": [{"role": "user", "content": "안녕하세요!"}],
"model_id": "gemini-2.0-flash-lite",
"provider": "gemini-text"
}'
curl -X POST https://api.soonsoon.ai/create/image \
-H "Content-Type: application/json" \
-H "X-API-Key: YOUR_API_KEY" \
-d '{
"prompt": "귀여운 고양이",
"model_id": "gemini-2.5-flash-image-preview",
"provider": "gemini-image"
}'
