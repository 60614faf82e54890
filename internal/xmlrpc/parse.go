package xmlrpc

import "unsafe"

// ParseCall reads a methodCall. The charset is the one of the HTTP
// Content-Type, "" if there was none. The document is neither kept nor changed.
// The error is a *Fault.
func ParseCall(doc []byte, charset string, lim Limits) (Call, error) {
	s := scanner{lim: lim.complete(), emit: true, unique: true}
	if !s.load(doc, charset) {
		return Call{}, s.fault
	}
	s.out = make([]byte, 0, s.estimate())
	call, ok := s.methodCall()
	if !ok {
		return Call{}, s.fault
	}
	return call, nil
}

// ParseResponse reads a methodResponse. One without a parameter, which some
// servers send where they mean nothing, is read as nil. The error is a *Fault;
// a fault that the peer answered is no error.
func ParseResponse(doc []byte, charset string, lim Limits) (Response, error) {
	s := scanner{lim: lim.complete(), emit: true}
	if !s.load(doc, charset) {
		return Response{}, s.fault
	}
	s.out = make([]byte, 0, s.estimate())
	isFault, ok := s.methodResponse()
	if !ok {
		return Response{}, s.fault
	}
	v := Value{view(s.out)}
	if isFault {
		return Response{Fault: v.fault()}, nil
	}
	return Response{Value: v}, nil
}

// CheckResponse gives ParseResponse's verdict and nothing else: whether the
// answer is a fault, and the error if it is no answer. It allocates nothing for
// a correct answer in UTF-8, unless a name, number, date or base64 value in it
// is broken by a reference, a carriage return, a comment or a CDATA section.
func CheckResponse(doc []byte, charset string, lim Limits) (fault bool, err error) {
	s := scanner{lim: lim.complete()}
	if !s.load(doc, charset) {
		return false, s.fault
	}
	fault, ok := s.methodResponse()
	if !ok {
		return false, s.fault
	}
	return fault, nil
}

// estimate is how long the canonical form is likely to be: mostly shorter than
// the document, for the white space that it leaves out; longer where values are
// untyped, and then it grows.
func (s *scanner) estimate() int { return len(s.in) - s.pos + 64 }

// view shows bytes that nobody changes any more as a string, without a copy.
func view(b []byte) string { return unsafe.String(unsafe.SliceData(b), len(b)) }

// fault reads the struct of a fault. Members that are missing or of another
// type than the specification's are left at zero: the answer is a fault anyway.
func (v Value) fault() *Fault {
	f := &Fault{}
	if code, ok := v.Member("faultCode"); ok {
		n, _ := code.Int()
		f.Code = int(n)
	}
	if text, ok := v.Member("faultString"); ok {
		f.Text, _ = text.Str()
	}
	return f
}
