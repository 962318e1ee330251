package openapi

//go:generate go run ./generate
