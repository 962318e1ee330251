package apiserver

import (
	"bytes"
	"context"
	"net/http"
	"strings"

	"golang.org/x/net/websocket"

	"github.com/xebec-mesh/xebec/orchestrator/cache"
)

func isWebSocket(r *http.Request) bool {
	return strings.EqualFold(r.Header.Get("Upgrade"), "websocket") && headerHas(r.Header, "Connection", "upgrade")
}

func headerHas(h http.Header, name, token string) bool {
	for _, line := range h.Values(name) {
		for _, part := range strings.Split(line, ",") {
			if strings.EqualFold(strings.TrimSpace(part), token) {
				return true
			}
		}
	}
	return false
}

// watchWebSocket sends each event as a message of its own.
func (c *call) watchWebSocket(ctx context.Context, w eventSource, first error, encode func([]byte, *cache.Event) []byte) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	server := websocket.Server{Handler: func(ws *websocket.Conn) {
		defer ws.Close()
		go func() { // ends with the connection: a client that reads only says nothing but goodbye
			defer cancel()
			var ignored [512]byte
			for {
				if _, err := ws.Read(ignored[:]); err != nil {
					return
				}
			}
		}()
		if first != nil {
			_ = c.sendFrame(ws, c.errorEvent(first))
			return
		}
		for {
			events, err := w.Next(ctx)
			for _, e := range events {
				if c.sendFrame(ws, encode(nil, e)) != nil {
					return
				}
			}
			if err != nil {
				if ctx.Err() == nil {
					_ = c.sendFrame(ws, c.errorEvent(err))
				}
				return
			}
		}
	}}
	server.ServeHTTP(c.w, c.r)
}

// sendFrame strips what only a byte stream needs: the newline, or the length.
func (c *call) sendFrame(ws *websocket.Conn, frame []byte) error {
	if c.format.Type == typeProtobuf {
		return websocket.Message.Send(ws, frame[4:])
	}
	return websocket.Message.Send(ws, string(bytes.TrimSuffix(frame, []byte("\n"))))
}
