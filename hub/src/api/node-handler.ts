import type { IncomingMessage, ServerResponse } from 'node:http'
import type { Http2ServerRequest, Http2ServerResponse } from 'node:http2'
import { Code, ConnectError, type ConnectRouter, type ContextValues } from '@connectrpc/connect'
import { universalRequestFromNodeRequest, universalResponseToNodeResponse } from '@connectrpc/connect-node'
import type { Logger } from 'pino'

export type NodeRequest = IncomingMessage | Http2ServerRequest
export type NodeResponse = ServerResponse | Http2ServerResponse

export interface NodeHandlerOptions {
  /** What a call comes with beside its headers. */
  readonly contextValues: (request: NodeRequest) => ContextValues
  /** Answers what is no call of the routes. */
  readonly fallback: (request: NodeRequest, response: NodeResponse) => void
  readonly log: Logger
}

/**
 * Serves routes over HTTP/1.1 and HTTP/2. It does what `connectNodeAdapter` does, but for two things: an answer that cannot be delivered is a line of the log and no stack
 * trace on the console, and bodies are read by {@link bodyOf}.
 */
export function nodeHandler(
  router: ConnectRouter,
  { contextValues, fallback, log }: NodeHandlerOptions,
): (request: NodeRequest, response: NodeResponse) => void {
  const handlers = new Map(router.handlers.map((handler) => [handler.requestPath, handler]))
  return (request, response) => {
    const handler = handlers.get(request.url?.split('?', 1)[0] ?? '')
    if (handler === undefined) {
      fallback(request, response)
      return
    }
    const called = universalRequestFromNodeRequest(
      request,
      response as ServerResponse,
      undefined,
      contextValues(request),
    )
    handler({ ...called, body: bodyOf(request) })
      .then((answer) => universalResponseToNodeResponse(answer, response as ServerResponse))
      .catch((error: unknown) => {
        // Whoever called broke off, and minds no more.
        if (ConnectError.from(error).code === Code.Aborted) return
        log.info({ err: error, procedure: handler.requestPath.slice(1) }, 'an answer could not be delivered')
      })
  }
}

/**
 * The library's own generators are compiled for old engines: each is a closure that V8 gives a hidden class of its own, and that keeps whatever the call was about until all
 * memory is looked through.
 */
async function* bodyOf(request: NodeRequest): AsyncGenerator<Uint8Array> {
  for await (const chunk of request) yield chunk as Uint8Array
}
