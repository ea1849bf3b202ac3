"""`ift serve`: a model behind the HTTP interface of OpenAI.

`app` has the routes, and `http_answer` what happens with one request from its body to its last
byte. `completion_call` and `chat_call` read the bodies (through `fields` and `call_options`) and
write the answers. `answer_queue` has the bounded queue and the one thread that uses the devices.
`http_server` runs it all until a signal comes. Starlette and uvicorn, the extra `serve`, are
imported by `app`, `http_answer` and `http_server` alone.
"""
