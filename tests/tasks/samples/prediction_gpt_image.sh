curl https://aihubmix.com/v1/models/opanai/gpt-image-1/predictions \
    -H "Content-Type: application/json" \
    -H "Authorization: Bearer sk-***" \
    -d '{
  "input": {
    "prompt": "호수에서 물을 마시는 사슴, 벚꽃 잎이 떨어지고, 푸르고 깨끗한 물, 일본 사원, 얼룩덜룩한 햇빛, 영화 같은 조명, 넓은 시야, 평화",
    "size": "1024x1024", 
    "n": 1,
    "quality": "high",
    "moderation": "low",
    "background": "auto"
  }
}'
