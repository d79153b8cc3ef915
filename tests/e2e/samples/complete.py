import requests
import base64
# API 설정
BASE_URL = "https://api.soonsoon.ai"
API_KEY = "your_api_key_here"
headers = {"X-API-Key": API_KEY, "Content-Type": "application/json"}
# 1. 프로바이더 목록 조회
response = requests.get(f"{BASE_URL}/providers", headers=headers)
providers = response.json()["providers"]
print("사용 가능한 프로바이더:", providers)
# 2. 텍스트 생성
text_data = {
"messages": [{"role": "user", "content": "AI에 대해 설명해줘"}],
"model_id": "gemini-2.0-flash-lite",
"provider": "gemini-text"
}
response = requests.post(f"{BASE_URL}/generate/text", headers=headers, json=text_data)
print("생성된 텍스트:", response.json())
# 3. 이미지 생성
image_data = {
"prompt": "미래도시의 모습",
"model_id": "gemini-2.5-flash-image-preview",
"provider": "gemini-image"
}
response = requests.post(f"{BASE_URL}/create/image", headers=headers, json=image_data)
result = response.json()
# Base64 이미지를 파일로 저장
if "images" in result and result["images"]:
    image_base64 = result["images"][0]
    with open("generated_image.jpg", "wb") as f:
        f.write(base64.b64decode(image_base64))
    print("이미지가 generated_image.jpg로 저장되었습니다.")
