/** Channels between a primary and its workers without processes: serialized as between processes, and as asynchronous. */
import { deserialize, serialize } from 'node:v8'
import { MessageChannel, type MessagePort } from 'node:worker_threads'
import { type Channel, createChannel, type Peer, type ToPrimary, type ToWorker } from '../../../server/src/workers/channel.ts'

export type ChannelEnds = { primary: Channel<ToWorker, ToPrimary>; worker: Channel<ToPrimary, ToWorker>; close(): void }

export function makeChannelEnds(): ChannelEnds {
  const { port1, port2 } = new MessageChannel()
  return {
    primary: createChannel(peerOf(port1)),
    worker: createChannel(peerOf(port2)),
    close: () => port1.close(),
  }
}

function peerOf(port: MessagePort): Peer {
  return {
    send(message, _handle, _options, sent) {
      port.postMessage(serialize(message))
      setImmediate(sent, null)
      return true
    },
    on: (event, listener) => port.on(event, (bytes: Uint8Array) => listener(deserialize(bytes))),
  }
}
