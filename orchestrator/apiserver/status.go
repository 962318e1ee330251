package apiserver

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// maxBody is the largest request body, in bytes, as Kubernetes has it.
const maxBody = 3 << 20

// statusOf turns any error into the Status that says it. An error that is no
// API error is the server's own fault.
func statusOf(err error) metav1.Status {
	var api apierrors.APIStatus
	var tooLarge *http.MaxBytesError
	status := metav1.Status{Status: metav1.StatusFailure, Code: http.StatusInternalServerError, Reason: metav1.StatusReasonInternalError}
	switch {
	case errors.As(err, &api):
		status = api.Status()
		if status.Status == "" {
			status.Status = metav1.StatusFailure
		}
		if status.Code == 0 {
			status.Code = http.StatusInternalServerError
		}
	case errors.As(err, &tooLarge):
		status = apierrors.NewRequestEntityTooLargeError(fmt.Sprintf("limit is %d", tooLarge.Limit)).ErrStatus
	case errors.Is(err, context.DeadlineExceeded):
		status = apierrors.NewTimeoutError("request did not complete within the allotted timeout", 0).ErrStatus
	case errors.Is(err, context.Canceled):
		status = apierrors.NewTimeoutError("request was cancelled by the client", 0).ErrStatus
	default:
		status.Message = fmt.Sprintf("Internal error occurred: %v", err)
		status.Details = &metav1.StatusDetails{Causes: []metav1.StatusCause{{Message: err.Error()}}}
	}
	status.Kind, status.APIVersion = "Status", "v1"
	return status
}

// fail answers with an error.
func (s *Server) fail(w http.ResponseWriter, r *http.Request, err error) {
	status := statusOf(err)
	if status.Code >= 500 && status.Code != http.StatusGatewayTimeout && r.Context().Err() == nil {
		s.log.Error("request failed", "method", r.Method, "path", r.URL.Path, "code", status.Code, "err", err)
	}
	if status.Details != nil && status.Details.RetryAfterSeconds > 0 {
		w.Header().Set("Retry-After", strconv.Itoa(int(status.Details.RetryAfterSeconds)))
	}
	s.writeStatus(w, r, &status)
}

// writeStatus answers with a Status, as JSON unless the client reads only others.
func (s *Server) writeStatus(w http.ResponseWriter, r *http.Request, status *metav1.Status) {
	status.Kind, status.APIVersion = "Status", "v1"
	f, ok := negotiate(r, offers{protobuf: true})
	if !ok {
		f = format{Type: typeJSON}
	}
	w.Header().Set("X-Content-Type-Options", "nosniff")
	body, err := encode(f, status, schema.GroupVersionKind{Version: "v1", Kind: "Status"})
	if err != nil {
		body, _ = json.Marshal(status)
		f.Type = typeJSON
	}
	writeBody(w, f, int(status.Code), body)
}

func errNotFound(r *request) error {
	return &apierrors.StatusError{ErrStatus: metav1.Status{
		Status: metav1.StatusFailure, Code: http.StatusNotFound, Reason: metav1.StatusReasonNotFound,
		Message: "the server could not find the requested resource",
		Details: &metav1.StatusDetails{Group: r.Group, Kind: r.Resource, Name: r.Name},
	}}
}

func errMethod(r *request, verb string) error {
	return apierrors.NewMethodNotSupported(r.groupResource(), verb)
}

func errNotAcceptable() error {
	return &apierrors.StatusError{ErrStatus: metav1.Status{
		Status: metav1.StatusFailure, Code: http.StatusNotAcceptable, Reason: metav1.StatusReasonNotAcceptable,
		Message: fmt.Sprintf("only the following media types are accepted: %s, %s, %s", typeJSON, typeYAML, typeProtobuf),
	}}
}

func errMediaType(accepted string) error {
	return &apierrors.StatusError{ErrStatus: metav1.Status{
		Status: metav1.StatusFailure, Code: http.StatusUnsupportedMediaType, Reason: metav1.StatusReasonUnsupportedMediaType,
		Message: "the body of the request was in an unknown format - accepted media types include: " + accepted,
	}}
}

func errUnauthorized() error {
	return apierrors.NewUnauthorized("Unauthorized")
}
