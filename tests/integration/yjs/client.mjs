// An ordinary Yjs client of shared knowledge: yjs and y-websocket as they are, and nothing of ours.
//
//     node client.mjs URL ROOM
//
// Reads commands as JSON objects, one a line, and prints one JSON object a line for each change it hears of
// and each command it has done: its state vector in hexadecimal digits and the whole document.

import { createInterface } from 'node:readline'

import { WebSocket } from 'ws'
import { WebsocketProvider } from 'y-websocket'
import * as Y from 'yjs'

const [url, room] = process.argv.slice(2)
const doc = new Y.Doc()
const roots = Object.fromEntries(
  ['incidents', 'outcomes', 'facts', 'goals'].map((kind) => [kind, doc.getMap(kind)])
)
const provider = new WebsocketProvider(url, room, doc, {
  WebSocketPolyfill: WebSocket,
  disableBc: true
})

function tell(event) {
  const state = Buffer.from(Y.encodeStateVector(doc)).toString('hex')
  const document = Object.fromEntries(Object.entries(roots).map(([kind, root]) => [kind, root.toJSON()]))
  process.stdout.write(JSON.stringify({ event, client: doc.clientID, state, document }) + '\n')
}

const commands = {
  // An entry, on the shelf of this name; the shelf is made with its first one.
  put({ kind, shelf, key, value }) {
    doc.transact(() => {
      const found = roots[kind].get(shelf)
      if (found instanceof Y.Map) found.set(key, value)
      else roots[kind].set(shelf, new Y.Map([[key, value]]))
    })
  },
  // A type that has no place in the document.
  text({ words }) {
    doc.getText('notes').insert(0, words)
  },
  away() {
    provider.disconnect()
  },
  back() {
    provider.connect()
  },
  end() {
    provider.destroy()
    doc.destroy()
    lines.close()
  }
}

provider.on('status', ({ status }) => tell(status))
provider.on('sync', (synced) => { if (synced) tell('synced') })
doc.on('update', (_update, origin) => { if (origin === provider) tell('heard') })

const lines = createInterface({ input: process.stdin })
for await (const line of lines) {
  const { do: name, ...rest } = JSON.parse(line)
  await commands[name](rest)
  if (name !== 'end') tell(name)
}
