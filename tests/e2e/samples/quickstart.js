const API_KEY = 'YOUR_API_KEY'; // 대시보드에서 받은 API 키
const BASE_URL = 'https://api.soonsoon.ai';
// 텍스트 생성
async function generateText() {
const response = await fetch(`${BASE_URL}/generate/text`, {
method: 'POST',
headers: {
'Content-Type': 'application/json',
'X-API-Key': API_KEY
},
body: JSON.stringify({
messages: [{role: 'user', content: '안녕하세요!'}],
model_id: 'gemini-2.0-flash-lite',
provider: 'gemini-text'
})
});
const result = await response.json();
console.log(result);
}
// 이미지 생성
async function generateImage() {
const response = await fetch(`${BASE_URL}/create/image`, {
method: 'POST',
headers: {
'Content-Type': 'application/json',
'X-API-Key': API_KEY
},
body: JSON.stringify({
prompt: '귀여운 고양이',
model_id: 'gemini-2.5-flash-image-preview',
provider: 'gemini-image'
})
});
const result = await response.json();
console.log(`이미지 생성 성공: ${result.images?.length || 0}개`);
}
generateText();
generateImage();
