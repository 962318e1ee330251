// Command metadata knows who took a picture, where, and who asks.
package main

import (
	"log"
	"net/http"

	"github.com/xebec-mesh/xebec/samples/pictures/service"
)

// Metadata is what is known of one picture.
type Metadata struct {
	Title  string `json:"title"`
	Author string `json:"author"`
	Place  string `json:"place"`
	// Caller is the SPIFFE ID of the service that asked.
	Caller string `json:"caller,omitempty"`
}

var known = map[string]Metadata{
	"harbour":  {Title: "Harbour at dawn", Author: "Ida", Place: "Bergen"},
	"terraces": {Title: "Terraces", Author: "Wanjiru", Place: "Yuanyang"},
	"dunes":    {Title: "Dunes", Author: "Tariq", Place: "Merzouga"},
	"glacier":  {Title: "Glacier", Author: "Sólveig", Place: "Jökulsárlón"},
}

func main() {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /metadata/{picture}", func(w http.ResponseWriter, r *http.Request) {
		m, ok := known[r.PathValue("picture")]
		if !ok {
			http.Error(w, "no picture "+r.PathValue("picture"), http.StatusNotFound)
			return
		}
		m.Caller = service.Caller(r)
		service.WriteJSON(w, m)
	})
	if err := service.Run("metadata", "8080", mux); err != nil {
		log.Fatal("metadata: ", err)
	}
}
