"""The literals of `test_openai_errors`: error replies on the OpenAI wire, each with its verdict.

One line a case, so that the table can be read as one.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from batchllm.core.json import dumps
from batchllm.core.nouns import Kind

TAXONOMY = {
    "unreachable": "DNS failure, connect refused, TLS error",
    "connect timeout": "connect timeout",
    "reset": "write error / reset before any response byte",
    "read timeout": "read timeout, no bytes",
    "408": "408",
    "409": "409",
    "429 rate": "rate or concurrency limit",
    "429 ramp": "slow_down, ramp_limit_exceeded",
    "429 day": "per-day limit",
    "429 money": "billing codes",
    "429 never": "limit value 0, Requested > Limit",
    "402": "no credit",
    "402 retry-after": "OpenRouter in-flight",
    "budget": "422 budget, 403 budget, 400 usage limits",
    "401 403": "401, 403, API_KEY_INVALID",
    "404": "model / deployment",
    "context": "400 context overflow",
    "filter": "400 content filter",
    "other 4xx": "other 400, 413, 415, 422",
    "498 499": "Groq flex, client gone",
    "500 502": "500, 502",
    "overload": "503, 529",
    "gateway timeout": "504, 524",
    "protocol": "3xx, HTML, 200 with invalid JSON",
    "error in 200": "200 + error, finish error",
    "200 length": "200 length",
    "200 refusal": "200 refusal / filter",
}
"""Rows of table F that concern one complete reply or its absence. (Streams and schemas are not this codec's; cap and cancel are the engine's.)"""

HTML = {"content-type": "text/html"}
NGINX = b"<html>\r\n<head><title>%s</title></head>\r\n<body>\r\n<center><h1>%s</h1></center>\r\n<hr><center>nginx/1.22.1</center>\r\n</body>\r\n</html>\r\n"


def nginx(line: str) -> bytes:
    return NGINX % (line.encode(), line.encode())


def err(message: str, *, type: str | None = None, code: Any = None, **more: Any) -> bytes:  # noqa: A002 - the wire's own word
    return dumps({"error": {"message": message, "type": type, "param": None, "code": code, **more}})


VERDICTS: dict[str, tuple[Kind, str, bool, str]] = {
    "conflict": (Kind.CONFLICT, "maybe", True, "again"),
    "conflict, billed no": (Kind.CONFLICT, "no", True, "again"),
    "rate": (Kind.RATE, "no", True, "refused"),
    "ramp": (Kind.RAMP, "no", True, "slower"),
    "day": (Kind.QUOTA_DAY, "no", False, "window"),
    "money": (Kind.MONEY, "no", False, "out"),
    "oversize": (Kind.OVERSIZE, "no", False, "fail rate_limited"),
    "model gone": (Kind.MODEL_GONE, "no", False, "out"),
    "rate, uncounted": (Kind.RATE, "no", False, "refused"),
    "auth": (Kind.AUTH, "no", False, "out"),
    "bad request": (Kind.BAD_REQUEST, "no", True, "fail rejected"),
    "context": (Kind.CONTEXT, "no", True, "fail too_long"),
    "filter": (Kind.FILTER, "no", True, "fail refused"),
    "filter, billed maybe": (Kind.FILTER, "maybe", True, "fail refused"),
    "overload": (Kind.OVERLOAD, "no", False, "down"),
    "overload, counted": (Kind.OVERLOAD, "no", True, "down"),
    "server": (Kind.SERVER, "maybe", True, "again"),
    "bad gateway": (Kind.BAD_GATEWAY, "maybe", True, "down"),
    "gateway timeout": (Kind.GATEWAY_TIMEOUT, "maybe", True, "again"),
    "protocol": (Kind.PROTOCOL, "maybe", True, "again"),
    "protocol, billed yes": (Kind.PROTOCOL, "yes", True, "again"),
    "rate, billed maybe": (Kind.RATE, "maybe", True, "refused"),
    "overload, billed maybe": (Kind.OVERLOAD, "maybe", True, "down"),
    "bad request, billed maybe": (Kind.BAD_REQUEST, "maybe", True, "fail rejected"),
    "model gone, billed maybe": (Kind.MODEL_GONE, "maybe", True, "out"),
    "server, billed yes": (Kind.SERVER, "yes", True, "again"),
    "cut": (Kind.CUT, "maybe", True, "again"),
}
"""Kind, billed, counts, and the decision on a first failure."""


class Case(NamedTuple):
    row: str
    name: str
    status: int
    headers: dict[str, str]
    body: bytes
    verdict: str
    wait: float | None = None


TPM = "Rate limit reached for gpt-6-luna in organization org-x on tokens per min (TPM): Limit 30000, Used 29800, Requested 900. Please try again in 1.4s."
RPD = (
    "Rate limit reached for gpt-6-luna in organization org-x on requests per day (RPD): Limit 200, Used 200, Requested 1. Please try again in 7m12s."
)
BIG = "Request too large for gpt-6-luna on tokens per min (TPM): Limit 30,000, Requested 45,120. The input or output tokens must be reduced."
OPENAI_QUOTA = (
    "You exceeded your current quota, please check your plan and billing details. Read the docs: https://platform.openai.com/docs/guides/error-codes"
)
GEMINI_QUOTA = "You exceeded your current quota, please check your plan and billing details. Please retry in 26.3s."
OPENAI_500 = "The server had an error while processing your request."
REDIRECT = {"location": "https://x/login"}


def gemini(quota_id: str, value: str = "250000", *, message: str = GEMINI_QUOTA) -> bytes:
    details = [
        {"@type": "type.googleapis.com/google.rpc.QuotaFailure", "violations": [{"quotaId": quota_id, "quotaValue": value}]},
        {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "26s"},
    ]
    return dumps([{"error": {"code": 429, "message": message, "status": "RESOURCE_EXHAUSTED", "details": details}}])


# fmt: off
CASES = [
    Case("408", "plain", 408, {}, err("Request timed out."), "conflict"),
    Case("409", "lock", 409, {}, err("conflict"), "conflict, billed no"),
    Case("429 rate", "openai tpm", 429, {}, err(TPM, type="tokens", code="rate_limit_exceeded"), "rate", 1.4),
    Case("429 rate", "retry-after wins over text", 429, {"retry-after": "3"}, err(TPM, type="tokens", code="rate_limit_exceeded"), "rate", 3),
    Case("429 rate", "milliseconds win", 429, {"retry-after": "3", "retry-after-ms": "1250"}, err(TPM, code="rate_limit_exceeded"), "rate", 1.25),
    Case("429 rate", "azure", 429, {}, err("Requests have exceeded the call rate limit. Please retry after 6 seconds.", code="429"), "rate", 6),
    Case("429 rate", "anthropic", 429, {"retry-after": "7"}, err("slow", type="rate_limit_error"), "rate", 7),
    Case("429 rate", "gemini per minute", 429, {}, gemini("GenerateContentInputTokensPerModelPerMinute"), "rate", 26),
    Case("429 rate", "gemini without details", 429, {}, dumps([{"error": {"code": 429, "message": GEMINI_QUOTA}}]), "rate", 26.3),
    Case("429 rate", "mistral", 429, {}, b'{"message":"Rate limit exceeded"}', "rate"),
    Case("429 rate", "concurrency", 429, {}, err("Too many concurrent requests"), "rate"),
    Case("429 rate", "empty body", 429, {}, b"", "rate"),
    Case("429 rate", "nginx", 429, HTML, nginx("429 Too Many Requests"), "rate"),
    Case("429 rate", "type insufficient_quota beside a rate code", 429, {}, err("wait", type="insufficient_quota", code="rate_limit_exceeded"), "rate"),
    Case("429 rate", "only the exhausted dimension's reset", 429, {"x-ratelimit-remaining-requests": "12", "x-ratelimit-reset-requests": "6m0s", "x-ratelimit-remaining-tokens": "0", "x-ratelimit-reset-tokens": "1m6.4s"}, err("limit"), "rate", 66.4),
    Case("429 rate", "nothing exhausted", 429, {"x-ratelimit-remaining-requests": "12", "x-ratelimit-reset-requests": "6m0s"}, err("limit"), "rate"),
    Case("429 rate", "litellm key over rpm", 429, {"retry-after": "60", "x-ratelimit-api_key-remaining-requests": "0"}, err("Rate limit exceeded for api_key. Limit type: requests. Current limit: 5, Remaining: 0", type="throttling_error", code="429", rate_limit_type="requests"), "rate", 60),
    Case("429 rate", "litellm too many in parallel", 429, {"retry-after": "60"}, err("max_parallel_requests limit reached", type="throttling_error", code="429"), "rate", 60),
    Case("429 rate", "litellm upstream's own", 429, {}, err("litellm.RateLimitError: RateLimitError: OpenAIException - Rate limit reached", type="throttling_error", code="429"), "rate"),
    Case("429 rate", "litellm upstream's header", 429, {"llm_provider-retry-after": "4"}, err("litellm.RateLimitError: Rate limit reached", code="429"), "rate", 4),
    Case("429 rate", "litellm cooldown", 429, {}, err("No deployments available, Try again in 30 seconds.", type="all_deployments_in_cooldown", code="429"), "rate", 30),
    Case("429 ramp", "openai", 429, {}, err("slow down", type="rate_limit_error", code="slow_down"), "ramp"),
    Case("429 ramp", "anthropic", 429, {"retry-after": "12"}, err("x", type="rate_limit_error", details={"error_code": "ramp_limit_exceeded"}), "ramp", 12),
    Case("429 day", "openai rpd", 429, {}, err(RPD, type="requests", code="rate_limit_exceeded"), "day", 432),
    Case("429 day", "tokens per day", 429, {"retry-after": "3600"}, err("Limit on tokens per day (TPD) reached", code="rate_limit_exceeded"), "day", 3600),
    Case("429 day", "gemini's short retryDelay is not believed", 429, {}, gemini("GenerateRequestsPerDayPerProjectPerModel-FreeTier", "50", message="quota"), "day"),
    Case("429 day", "openrouter free models", 429, {}, err("Rate limit exceeded: free-models-per-day", code=429), "day"),
    *(Case("429 money", code, 429, {}, err("No credit.", type="insufficient_quota", code=code), "money") for code in ("credit_balance_exhausted", "organization_spend_limit_exceeded", "project_spend_limit_exceeded", "organization_usage_limit_exceeded", "insufficient_quota", "billing_not_active", "billing_hard_limit_reached")),
    Case("429 money", "type only", 429, {"retry-after": "5"}, err("You exceeded your current quota", type="insufficient_quota"), "money"),
    Case("429 money", "anthropic", 429, {}, err("x", type="rate_limit_error", details={"error_code": "enforced_spend_limit_reached"}), "money"),
    Case("429 money", "litellm dropped the code", 429, {}, err(f"litellm.RateLimitError: OpenAIException - {OPENAI_QUOTA}", type="throttling_error", code="429"), "money"),
    Case("429 money", "litellm budget as 429", 429, {}, err("Budget has been exceeded! Current cost: 0.3, Max budget: 0.2", type="budget_exceeded", code="429"), "money"),
    Case("429 never", "requested over limit", 429, {}, err(BIG, type="tokens", code="rate_limit_exceeded"), "oversize"),
    Case("429 never", "groq 413", 413, {}, err("Request too large for model `x` on tokens per minute (TPM): Limit 6000, Requested 7012, please reduce.", type="tokens", code="rate_limit_exceeded"), "oversize"),
    Case("429 never", "too large without numbers", 429, {}, err("Request too large for your tier."), "oversize"),
    Case("429 never", "mistral limit 0", 429, {"x-ratelimit-limit-req-minute": "0"}, b'{"message":"Rate limit exceeded"}', "model gone"),
    Case("429 never", "gemini quota 0", 429, {}, gemini("GenerateRequestsPerMinute", "0"), "model gone"),
    Case("429 never", "text limit 0", 429, {}, err("on requests per min (RPM): Limit 0, Used 0, Requested 1.", code="rate_limit_exceeded"), "model gone"),
    Case("402", "deepseek", 402, {}, err("Insufficient Balance", type="unknown_error", code="invalid_request_error"), "money"),
    Case("402", "openrouter no credit", 402, {}, err("Insufficient credits", code=402, metadata={"limit_source": "openrouter_credits"}), "money"),
    Case("402", "anthropic", 402, {}, err("x", type="billing_error"), "money"),
    Case("402", "openrouter one request too dear", 402, {}, err("x", code=402, metadata={"error_type": "weight_exceeds_budget"}), "oversize"),
    Case("402 retry-after", "openrouter in flight", 402, {"retry-after": "2"}, err("x", code=402, metadata={"limit_source": "openrouter_in_flight_budget"}), "rate, uncounted", 2),
    Case("402 retry-after", "bare", 402, {"retry-after": "2"}, b"", "rate, uncounted", 2),
    Case("budget", "litellm 422", 422, {}, err("Budget has been exceeded! Current cost: 0.3, Max budget: 0.2", type="budget_exceeded", code="422"), "money"),
    Case("budget", "litellm 400", 400, {}, err("ExceededBudget: User=u over budget. Spend=2, Budget=1", type="auth_error", code="400"), "money"),
    Case("budget", "openrouter 403", 403, {}, err("Key limit exceeded (monthly limit).", code=403, metadata={"limit_source": "openrouter_key_limit", "resets_at": "2026-12-01"}), "money"),
    Case("budget", "openrouter 403 by source", 403, {}, err("Denied", code=403, metadata={"limit_source": "workspace_budget"}), "money"),
    Case("budget", "anthropic 400", 400, {}, err("You have reached your specified API usage limits. You will regain access on 2026-12-01.", type="invalid_request_error"), "money"),
    Case("401 403", "openai", 401, {}, err("Incorrect API key provided: sk-x", type="invalid_request_error", code="invalid_api_key"), "auth"),
    Case("401 403", "vllm string", 401, {}, b'{"error":"Unauthorized"}', "auth"),
    Case("401 403", "empty", 401, {}, b"", "auth"),
    Case("401 403", "region", 403, {}, err("Country, region, or territory not supported", type="request_forbidden", code="unsupported_country_region_territory"), "auth"),
    Case("401 403", "no access to model", 403, {}, err("Project `p` does not have access to model `gpt-6-astra`", type="invalid_request_error"), "model gone"),
    Case("401 403", "gemini bad key", 400, {}, dumps([{"error": {"code": 400, "message": "API key not valid.", "status": "INVALID_ARGUMENT", "details": [{"reason": "API_KEY_INVALID"}]}}]), "auth"),
    Case("401 403", "litellm wrong key, no database", 400, {}, dumps({"error": {"message": "No connected db.", "type": "no_db_connection", "param": None, "code": "400"}}), "auth"),
    Case("401 403", "litellm model not for this key", 401, {}, err("key not allowed to access model.", type="key_model_access_denied", code="401"), "model gone"),
    Case("404", "openai", 404, {}, err("The model `gpt-9` does not exist or you do not have access to it.", type="invalid_request_error", code="model_not_found"), "model gone"),
    Case("404", "vllm", 404, {}, err("The model `x` does not exist.", type="NotFoundError", code=404), "model gone"),
    Case("404", "azure", 404, {}, err("The API deployment for this resource does not exist.", code="DeploymentNotFound"), "model gone"),
    Case("404", "ollama", 404, {}, err("model 'x' not found", type="not_found_error"), "model gone"),
    Case("404", "wrong path", 404, {}, b'{"detail":"Not Found"}', "model gone"),
    Case("404", "wrong path, html", 404, HTML, nginx("404 Not Found"), "model gone"),
    Case("404", "wrong path, 405", 405, {}, b'{"detail":"Method Not Allowed"}', "model gone"),
    Case("404", "litellm 400", 400, {}, err("/chat/completions: Invalid model name passed in model=gpt-9. Call `/v1/models` to view available models for your key.", code="400"), "model gone"),
    Case("404", "groq retired", 400, {}, err("The model `x` has been decommissioned", type="invalid_request_error", code="model_decommissioned"), "model gone"),
    Case("404", "a file of the row", 404, {}, err("No such File object: file-1", type="invalid_request_error"), "bad request"),
    Case("context", "openai", 400, {}, err("This model's maximum context length is 8192 tokens.", type="invalid_request_error", code="context_length_exceeded"), "context"),
    Case("context", "vllm int code", 400, {}, err("This model's maximum context length is 512 tokens. However, you requested 600.", type="BadRequestError", code=400), "context"),
    Case("context", "llama-server", 400, {}, dumps({"error": {"code": 400, "message": "the request exceeds the available context size", "type": "exceed_context_size_error", "n_prompt_tokens": 1813, "n_ctx": 512}}), "context"),
    Case("context", "litellm text", 400, {}, err("litellm.BadRequestError: litellm.ContextWindowExceededError: too much", code="400"), "context"),
    Case("context", "anthropic", 400, {}, err("prompt is too long: 210000 tokens > 200000 maximum", type="invalid_request_error"), "context"),
    Case("context", "sglang flat", 400, {}, dumps({"object": "error", "message": "The input (600 tokens) is longer than the model's context length (512 tokens).", "type": "BadRequestError", "param": None, "code": 400}), "context"),
    Case("context", "tgi 422", 422, {}, b'{"error":"Input validation error: `inputs` tokens + `max_new_tokens` must be <= 512","error_type":"validation"}', "context"),
    Case("context", "at 500", 500, {}, err("current length is 600 while limit is 512"), "context"),
    Case("context", "gemini 413", 413, {}, err("input exceeds the maximum number of tokens allowed"), "context"),
    Case("context", "a parameter's length is not the window", 400, {}, err("Invalid 'user': string too long. maximum context length is", code="string_above_max_length"), "bad request"),
    Case("filter", "openai", 400, {}, err("x", type="invalid_request_error", code="content_policy_violation"), "filter"),
    Case("other 4xx", "groq", 400, {}, err("Failed to call a function.", type="invalid_request_error", code="tool_use_failed"), "cut"),
    Case("other 4xx", "groq", 400, {}, err("Failed to generate JSON.", type="invalid_request_error", code="json_validate_failed"), "cut"),
    Case("filter", "azure prompt filter", 400, {}, err("The response was filtered", code="content_filter", innererror={"code": "ResponsibleAIPolicyViolation", "content_filter_result": {"hate": {"filtered": True}}}), "filter, billed maybe"),
    Case("filter", "openrouter moderation", 403, {}, err("Your input was flagged", code=403, metadata={"reasons": ["violence"], "flagged_input": "..."}), "filter"),
    Case("filter", "litellm", 400, {}, err("litellm.ContentPolicyViolationError: x", code="400"), "filter"),
    Case("other 4xx", "400", 400, {}, err("'temperature' is not supported", type="invalid_request_error", code="unsupported_parameter"), "bad request"),
    Case("other 4xx", "nginx 413", 413, HTML, nginx("413 Request Entity Too Large"), "bad request"),
    Case("other 4xx", "415", 415, {}, b"", "bad request"),
    Case("other 4xx", "mistral 422", 422, {}, b'{"detail":[{"type":"missing","loc":["body","messages"],"msg":"Field required","input":{"x":"insufficient_quota"}}]}', "bad request"),
    Case("other 4xx", "transformers 422", 422, {}, b'{"detail":"Unexpected fields in the request: {\'foo\'}"}', "bad request"),
    Case("other 4xx", "money words in an echo of the input", 400, {}, err("bad", code="invalid_value", input="budget has been exceeded insufficient_quota"), "bad request"),
    Case("498 499", "groq flex", 498, {}, err("x", type="capacity_exceeded", code="capacity_exceeded"), "overload"),
    Case("498 499", "openai flex", 429, {}, err("x", type="resource_unavailable", code="resource_unavailable"), "overload, counted"),
    Case("498 499", "client gone", 499, {}, err("x", type="api_error"), "conflict, billed no"),
    Case("500 502", "openai", 500, {}, err(OPENAI_500, type="server_error"), "server"),
    Case("500 502", "with hint", 500, {"retry-after": "2"}, err(OPENAI_500), "server", 2),
    Case("500 502", "transformers plain text", 500, {}, b"Internal Server Error", "server"),
    Case("500 502", "llama-server broken json", 500, {}, dumps({"error": {"code": 500, "message": "[json.exception.parse_error.101]", "type": "server_error"}}), "server"),
    Case("500 502", "litellm dead upstream", 500, {}, err("litellm.InternalServerError: InternalServerError: OpenAIException - Connection error.", code="500"), "bad gateway"),
    Case("500 502", "nginx 502", 502, HTML, nginx("502 Bad Gateway"), "bad gateway"),
    Case("500 502", "cloudflare 521", 521, HTML, b"<html><title>Web server is down</title>", "bad gateway"),
    Case("500 502", "cloudflare 520", 520, HTML, b"<html><title>Unknown error</title>", "server"),
    Case("overload", "openai", 503, {"retry-after": "5"}, err("x", type="service_unavailable_error", code="server_is_overloaded"), "overload, counted", 5),
    Case("overload", "openai older", 503, {}, err("x", code="slow_down"), "overload, counted"),
    Case("overload", "vllm", 503, {}, err("The engine is currently busy", type="ServiceUnavailableError", code=503), "overload, counted"),
    Case("overload", "sglang flat", 503, {}, b'{"object":"error","message":"The request queue is full.","type":"SERVICE_UNAVAILABLE","code":503}', "overload, counted"),
    Case("overload", "nginx limit_req", 503, HTML, nginx("503 Service Temporarily Unavailable"), "overload, counted"),
    Case("overload", "llama-server loading", 503, {}, b'{"error":{"message":"Loading model","type":"unavailable_error","code":503}}', "overload, counted"),
    Case("overload", "anthropic 529", 529, {}, err("Overloaded", type="overloaded_error"), "overload, counted"),
    Case("overload", "litellm stream failing at its start", 529, {}, err("x", code="529"), "overload, counted"),
    Case("overload", "dressed as 500", 500, {}, b'{"error":"server busy, please try again.  maximum pending requests exceeded"}', "overload, counted"),
    Case("gateway timeout", "nginx 504", 504, HTML, nginx("504 Gateway Time-out"), "gateway timeout"),
    Case("gateway timeout", "cloudflare 524", 524, {}, b"error code: 524", "gateway timeout"),
    Case("protocol", "redirect", 302, REDIRECT, b"", "protocol"),
    Case("protocol", "html 200", 200, HTML, b"<!DOCTYPE html><html><head><title>Sign in</title>", "protocol"),
    Case("protocol", "half json", 200, {}, b'{"id":"chatcmpl-1","choices":[{"ind', "protocol"),
    Case("protocol", "empty 200", 200, {}, b"", "protocol"),
    Case("protocol", "no choices", 200, {}, b'{"id":"x","choices":[]}', "protocol"),
    Case("protocol", "no choices, usage told", 200, {}, b'{"id":"x","usage":{"prompt_tokens":3,"completion_tokens":1}}', "protocol, billed yes"),
    Case("protocol", "204", 204, {}, b"", "protocol"),
    Case("error in 200", "openrouter 429", 200, {}, b'{"error":{"code":429,"message":"Please try again in 20ms"}}', "rate, billed maybe", 0.02),
    Case("error in 200", "beside choices", 200, {}, b'{"error":{"code":502,"message":"x"},"choices":[{"finish_reason":"error","message":{"content":"a"}}]}', "bad gateway"),
    Case("error in 200", "in the choice", 200, {}, b'{"choices":[{"finish_reason":"error","error":{"code":503,"message":"x"},"message":{"content":""}}]}', "overload, billed maybe"),
    Case("error in 200", "in a choice that says stop", 200, {}, b'{"choices":[{"finish_reason":"stop","error":{"code":429,"message":"x"},"message":{"content":""}}]}', "rate, billed maybe"),
    Case("error in 200", "string", 200, {}, b'{"error":"engine died"}', "server"),
    Case("error in 200", "list", 200, {}, b'[{"error":{"code":400,"message":"x","status":"INVALID_ARGUMENT"}}]', "bad request, billed maybe"),
    Case("error in 200", "flat", 200, {}, b'{"object":"error","message":"model `x` is gone","type":"NotFoundError","code":404}', "model gone, billed maybe"),
    Case("error in 200", "string code", 200, {}, b'{"error":{"code":"rate_limit_exceeded","message":"x"}}', "rate, billed maybe"),
    Case("error in 200", "server_error", 200, {}, b'{"error":{"code":"server_error","message":"x"},"usage":{"prompt_tokens":3,"completion_tokens":1}}', "server, billed yes"),
    *(Case("error in 200", f"finish {word}", 200, {}, dumps({"choices": [{"finish_reason": word, "message": {"content": "Li"}}]}), "cut") for word in ("error", "abort", "insufficient_system_resource")),
]
# fmt: on
