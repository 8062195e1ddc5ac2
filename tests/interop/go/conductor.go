package main

import (
	"fmt"
	"log"
	"net"
	"net/http"

	"github.com/gorilla/websocket"
)

// A desk is the other end of the SDK's websocket: Go exports and imports only when its control plane asks for that.
type desk struct {
	connections chan *websocket.Conn
	connection  *websocket.Conn
}

var conductor = desk{connections: make(chan *websocket.Conn, 1)}

// listen answers where.
func (d *desk) listen() string {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	upgrader := websocket.Upgrader{}
	handler := func(w http.ResponseWriter, r *http.Request) {
		connection, err := upgrader.Upgrade(w, r, nil)
		if err != nil {
			log.Print(err)
			return
		}
		d.connections <- connection
	}
	go func() { log.Fatal(http.Serve(listener, http.HandlerFunc(handler))) }()
	return "ws://" + listener.Addr().String()
}

// ask sends a request and returns the answer to it.
func (d *desk) ask(request map[string]any) (map[string]any, error) {
	if d.connection == nil {
		d.connection = <-d.connections
		if _, err := d.ask(map[string]any{"type": "executor_info"}); err != nil {
			return nil, err
		}
	}
	request["request_id"] = "interop"
	if err := d.connection.WriteJSON(request); err != nil {
		return nil, err
	}
	var answer map[string]any
	if err := d.connection.ReadJSON(&answer); err != nil {
		return nil, err
	}
	if message, ok := answer["error_message"].(string); ok && message != "" {
		return nil, fmt.Errorf("%s", message)
	}
	return answer, nil
}
