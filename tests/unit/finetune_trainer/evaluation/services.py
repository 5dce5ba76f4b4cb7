"""OpenAI-compatible services with answers defined by a test."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from finetune_api.evaluation import Endpoint


class Service:
    """An OpenAI-compatible server whose `answer` gets the body of each request: status, body and headers."""

    def __init__(self, answer):
        self.requests, self.together, self.most = [], 0, 0
        lock = threading.Lock()
        service = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                with lock:
                    service.requests.append((self.path, self.headers.get("Authorization"), body))
                    service.together += 1
                    service.most = max(service.most, service.together)
                status, content, headers = answer(body)
                with lock:
                    service.together -= 1
                data = content if isinstance(content, bytes) else json.dumps(content).encode()
                self.send_response(status)
                for name, value in {"Content-Length": str(len(data)), **headers}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *_):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.handle_error = lambda *_: None  # for example, a client that disconnected
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()

    def endpoint(self, **fields):
        url = f"http://127.0.0.1:{self.server.server_port}/v1"
        return Endpoint.model_validate({"name": "rag", "url": url, "model": "m", "concurrency": 1} | fields)
