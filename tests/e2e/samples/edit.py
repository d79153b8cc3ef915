import base64
import requests
def image_to_base64(image_path):
    """이미지 파일을 Base64로 변환"""
    with open(image_path, "rb") as image_file:
        encoded_string = base64.b64encode(image_file.read()).decode('utf-8')
    return f"data:image/jpeg;base64,{encoded_string}"
def edit_image(image_path, prompt, api_key):
    """이미지 편집 요청"""
    # 이미지를 Base64로 변환
    image_base64 = image_to_base64(image_path)
    response = requests.post(
    'https://api.soonsoon.ai/generate/image',
    headers={
    'Content-Type': 'application/json',
    'X-API-Key': api_key
    },
    json={
    'prompt': prompt,
    'image_data': image_base64,
    'model_id': 'gemini-2.5-flash-image-preview',
    'provider': 'gemini-image'
    }
    )
    return response.json()
# 사용 예시
result = edit_image(
'my_photo.jpg',
'이 사진을 수채화 스타일로 바꿔줘',
'YOUR_API_KEY'
)
# 결과 이미지 저장
if 'images' in result and result['images']:
    edited_image = base64.b64decode(result['images'][0])
    with open('edited_photo.jpg', 'wb') as f:
        f.write(edited_image)
    print('편집된 이미지가 edited_photo.jpg로 저장되었습니다.')
