package delivery

import (
	"strconv"

	"github.com/co2relay/co2relay/cluster"
	"github.com/co2relay/co2relay/internal/xmlrpc"
	"github.com/co2relay/co2relay/registry"
)

// The pieces of a notify call, in canonical form. What comes before the
// recipient's own notify_pass is the same for every recipient and is made once.
const (
	notifyOpen = "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<methodCall><methodName>notify</methodName><params><param><value><struct>"
	idOpen     = "<member><name>msg_id</name><value><string>"
	idClose    = "</string></value></member>"
	passOpen   = "<member><name>notify_pass</name><value><string>"
	notifyTail = "</string></value></member></struct></value></param></params></methodCall>\n"
)

// message is one entry of the log, ready to be sent. It never changes, so that
// every lane shares it.
type message struct {
	seq    uint64
	at     int64 // when the broker stored it, Unix nanoseconds
	sender registry.ID
	hash   uint64 // of sender
	part   int    // the sender's partition, whose owner counts its calls
	body   []byte // the notify call up to where the password goes
}

func newMessage(e cluster.Entry) *message {
	id := strconv.FormatUint(e.Seq, 10)
	body := make([]byte, 0, len(notifyOpen)+len(e.Body)+len(idOpen)+len(id)+len(idClose)+len(passOpen))
	body = append(body, notifyOpen...)
	body = append(body, e.Body...)
	body = append(body, idOpen...)
	body = append(body, id...)
	body = append(body, idClose...)
	body = append(body, passOpen...)
	sender := registry.ID(e.Sender)
	return &message{seq: e.Seq, at: e.Time.UnixNano(), sender: sender, hash: hashID(sender), part: sender.Partition(), body: body}
}

// size is what a message costs in memory, near enough for a budget.
func (m *message) size() int { return len(m.body) + 160 }

func newMessages(entries []cluster.Entry) []*message {
	ms := make([]*message, len(entries))
	for i, e := range entries {
		ms[i] = newMessage(e)
	}
	return ms
}

// appendTail appends what follows the shared part for one recipient.
func appendTail(b []byte, pass registry.Secret) []byte {
	b = xmlrpc.AppendEscaped(b, pass.Reveal())
	return append(b, notifyTail...)
}
