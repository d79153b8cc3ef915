#!/bin/bash
# 이미지 파일을 Base64로 변환
IMAGE_PATH="my_photo.jpg"
API_KEY="YOUR_API_KEY"
# Base64 변환
IMAGE_BASE64=$(base64 -i "$IMAGE_PATH")
IMAGE_DATA="data:image/jpeg;base64,$IMAGE_BASE64"
# API 호출
curl -X POST https://api.soonsoon.ai/generate/image \
-H "Content-Type: application/json" \
-H "X-API-Key: $API_KEY" \
-d "{
\"prompt\": \"이 사진을 만화 스타일로 바꿔줘\",
\"image_data\": \"$IMAGE_DATA\",
\"model_id\": \"gemini-2.5-flash-image-preview\",
\"provider\": \"gemini-image\"
}" \
-o response.json
echo "응답이 response.json에 저장되었습니다."
