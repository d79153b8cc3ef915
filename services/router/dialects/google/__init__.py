"""The Google dialect: the Gemini API's generateContent, streamGenerateContent, countTokens and models."""
