"""The HTTP routes of one backend: SGLang's native ones and OpenAI's, over aiohttp."""
