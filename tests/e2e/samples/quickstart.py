import requests
# API 설정
BASE_URL = "https://api.soonsoon.ai"
API_KEY = "YOUR_API_KEY" # 대시보드에서 받은 API 키
headers = {"X-API-Key": API_KEY, "Content-Type": "application/json"}
# 텍스트 생성
response = requests.post(f"{BASE_URL}/generate/text",
    headers=headers,
    json={
        "messages": [{"role": "user", "content": "안녕하세요!"}],
        "model_id": "gemini-2.0-flash-lite",
        "provider": "gemini-text"
    }
)
print(response.json())
# 이미지 생성
response = requests.post(f"{BASE_URL}/create/image",
    headers=headers,
    json={
        "prompt": "귀여운 고양이",
        "model_id": "gemini-2.5-flash-image-preview",
        "provider": "gemini-image"
    }
)
result = response.json()
print(f"이미지 생성 성공: {len(result.get('images', []))}개")
