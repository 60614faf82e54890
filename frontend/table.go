package frontend

import "github.com/co2relay/co2relay/internal/xmlrpc"

// methodTable is all that the relay can be asked by XML-RPC, in the order in
// which it is shown. The names are those of the protocol page, "Names (every
// one must answer)".
func methodTable() []method {
	var table []method
	table = append(table, relayMethods()...)
	table = append(table, satelliteMethods()...)
	table = append(table, introspectionMethods()...)
	return append(table, generalMethods()...)
}

const (
	unknownSatellite = "1, registry.Co2RegistryError: no satellite is registered under the id."
	hostIDDoc        = "the satellite's id, as relay.register returned it; the bare string may stand for the struct"
)

func hostIDMember() []member {
	return []member{{name: memberHostID, typ: typeString, doc: hostIDDoc}}
}

// relayMethods are what a satellite needs: come, speak, go.
func relayMethods() []method {
	return []method{
		{
			names: []string{"relay.register"},
			group: "Relaying",
			param: structParam,
			members: []member{
				{name: "port", typ: typeInt, doc: "the satellite's listening port, 1 to 65535; the relay calls back at the caller's address and this port"},
				{name: "plugins", typ: typeArray, doc: "names (strings) of the plugins that the satellite has loaded", optional: true, preset: xmlrpc.NewArray()},
				{name: "nick", typ: typeString, doc: "the satellite's nickname; empty means the host id", optional: true, preset: xmlrpc.NewString("")},
				{name: memberPass, typ: typeString, doc: "a password that the relay has to give with every notify to this satellite; nobody else ever sees it", optional: true, preset: xmlrpc.NewString("")},
				{name: "max_age", typ: typeDouble, doc: "seconds (int or double) after which a message is no longer wanted: an older backlog is skipped; 0 means no limit", optional: true, preset: xmlrpc.NewInt(0)},
				{name: "scheme", typ: typeString, doc: "'http' or 'https': how the relay calls back", optional: true, preset: xmlrpc.NewString("http")},
				{name: "tls_name", typ: typeString, doc: "with https, the name that the satellite's certificate must have; empty means the address", optional: true, preset: xmlrpc.NewString("")},
				{name: "register_pass", typ: typeString, doc: "the relay's shared secret, where its operator has set one", optional: true, preset: xmlrpc.NewString("")},
			},
			result:  typeString,
			returns: "the host id, '<ip>:<port>': the id that the satellite has to use from now on.",
			doc: "Register a satellite.\n" +
				"From then on the relay calls the satellite's method notify with every message that another satellite relays. " +
				"The address is the one that this call comes from. Registering the same address again replaces nick, plugins and notify_pass, " +
				"keeps what is still owed to it, and never fails because the relay is full.",
			faults: []string{
				"1, registry.Co2RegistryError: the relay is full (see relay.get_max_satellites), the address has as many satellites as it may, or register_pass is wrong.",
			},
			handle: (*Frontend).register,
		},
		{
			names:   []string{"relay.deregister"},
			group:   "Relaying",
			param:   hostIDParam,
			members: hostIDMember(),
			result:  typeString,
			returns: "'OK'",
			doc: "Revoke a satellite's registration.\n" +
				"A satellite should call this before it shuts down. The call must come from the satellite's own address. What was still owed to it is dropped.",
			faults: []string{
				"1, exceptions.KeyError: no satellite is registered under the id.",
				"1, registry.Co2RegistryError: the id is another address's.",
			},
			handle: (*Frontend).deregister,
		},
		{
			names: []string{"relay.relay"},
			group: "Relaying",
			param: structParam,
			members: []member{
				{name: memberHostID, typ: typeString, doc: "the sender's id, as relay.register returned it to the sender"},
				{name: memberData, typ: typeAny, doc: "what the sender wants to say: any value"},
				{name: memberDedup, typ: typeString, doc: "makes a repeat of this call safe: the same text from the same sender within two minutes is one message", optional: true},
			},
			result:  typeString,
			returns: "'OK' once the message is stored safely; it does not wait for any satellite.",
			doc: "Relay data to all other satellites.\n" +
				"Every registered satellite except the sender gets its method notify called with the struct as it was sent, further members included, " +
				"in the order in which the relay took the messages. Two members are the relay's own: notify_pass is the recipient's own password, " +
				"and msg_id (a string) is the message's place in the relay's log, the same for every recipient and every repeat.",
			faults: []string{
				"1, registry.Co2RegistryError: the sender is not registered, or calls from another address; it relays more often than the operator allows; the queue is full; the message is too large; " +
					"the relay is short of disk; its broker cannot be reached, or did not take the message; or the message may have been accepted, which the relay could not find out in time.",
			},
			handle: (*Frontend).relay,
		},
		{
			names:   []string{"relay.get_max_satellites"},
			group:   "Relaying",
			result:  typeInt,
			returns: "the limit",
			doc:     "Get the number of satellites that may be registered at the same time.",
			handle:  (*Frontend).maxSatellites,
		},
	}
}

const propsReturns = "a struct: addr (array: ip, port), host_id, nick, ctime (dateTime of the registration), " +
	"ping_current (double, ms; -1 if not pinged), ping_count (int), ping_min, ping_max, ping_avg (doubles, ms), ping_fails (int), " +
	"send_count (int: its relay.relay calls), send_time (dateTime of the last), recv_count (int: notify calls to it), recv_time (dateTime of the last). " +
	"A time that never came is 19700101T00:00:00. Times are UTC."

// satelliteMethods tell about the registered satellites.
func satelliteMethods() []method {
	return []method{
		{
			names:   []string{"relay.get_satellites", "co2.get_satellites", "web.get_satellites"},
			group:   "Satellites",
			result:  typeArray,
			returns: "the host ids (strings), sorted.",
			doc:     "Get the ids of all registered satellites.",
			handle:  (*Frontend).satellites,
		},
		{
			names:   []string{"relay.get_num_satellites", "co2.get_num_satellites", "web.get_num_satellites"},
			group:   "Satellites",
			result:  typeInt,
			returns: "how many there are",
			doc:     "Get the number of registered satellites.",
			handle:  (*Frontend).numSatellites,
		},
		{
			names:   []string{"relay.get_satellite_props", "co2.get_satellite_props", "web.get_satellite_props", "co2.get_satellite"},
			group:   "Satellites",
			param:   hostIDParam,
			members: hostIDMember(),
			result:  typeStruct,
			returns: propsReturns,
			doc:     "Get the status and the statistics of a satellite.",
			faults:  []string{unknownSatellite},
			handle:  (*Frontend).satelliteProps,
		},
		{
			names:   []string{"relay.get_satellite_props_raw"},
			group:   "Satellites",
			param:   hostIDParam,
			members: hostIDMember(),
			result:  typeStruct,
			returns: "the struct of relay.get_satellite_props with times as doubles (seconds since the epoch), and this relay's own figures: " +
				"plugins, scheme, max_age (seconds), state ('idle', 'live', 'behind' or 'parked'), backlog (messages still owed to it), " +
				"refused_count (notify calls that it answered with a fault), expired_count (messages that the log lost before it took them), " +
				"position (string: msg_id up to which it is done), attempts and retry_time (of the message it is stuck at), last_error, " +
				"ping_time, ping_failing (failures in a row) and one_at_a_time (boolean: it serves one connection at a time).",
			doc:    "Get everything that the relay knows of a satellite, except its password.",
			faults: []string{unknownSatellite},
			handle: (*Frontend).satellitePropsRaw,
		},
		{
			names:   []string{"relay.get_satellite_ctime", "co2.get_satellite_ctime", "web.get_satellite_ctime"},
			group:   "Satellites",
			param:   hostIDParam,
			members: hostIDMember(),
			result:  typeDouble,
			returns: "seconds since the epoch",
			doc:     "Get the time at which a satellite registered.",
			faults:  []string{unknownSatellite},
			handle:  (*Frontend).satelliteCtime,
		},
	}
}

func methodNameMember() []member {
	return []member{{name: memberMethod, typ: typeString, doc: "a method's name; it may stand by itself instead of in a struct"}}
}

const noSuchName = "-32602: there is no method of that name."

// introspectionMethods tell about the methods.
func introspectionMethods() []method {
	return []method{
		{
			names:   []string{"system.listMethods", "sys.listMethods", "co2.get_method_names", "co2.co2_get_method_names", "web.get_method_names"},
			group:   "About the methods",
			result:  typeArray,
			returns: "the names (strings), sorted.",
			doc:     "Get the names of all methods of this relay.",
			handle:  (*Frontend).methodNames,
		},
		{
			names:   []string{"system.methodHelp", "sys.methodHelp", "co2.get_method_help", "web.get_method_help"},
			group:   "About the methods",
			param:   nameParam,
			members: methodNameMember(),
			result:  typeString,
			returns: "the text",
			doc:     "Get the description of a method: what it does, the members that it takes, what it returns, its faults.",
			faults:  []string{noSuchName},
			handle:  (*Frontend).methodHelp,
		},
		{
			names:   []string{"system.methodSignature"},
			group:   "About the methods",
			param:   nameParam,
			members: methodNameMember(),
			result:  typeArray,
			returns: "an array of signatures; each is an array of type names (strings), the result's first and then the parameters'.",
			doc: "Get the types with which a method can be called, as generic XML-RPC clients ask for them.\n" +
				"For the members of a co2 method's struct ask co2.get_method_signature.",
			faults: []string{noSuchName},
			handle: (*Frontend).methodTypes,
		},
		{
			names:   []string{"co2.get_method_signature", "sys.methodSignature", "web.get_method_signature"},
			group:   "About the methods",
			param:   nameParam,
			members: methodNameMember(),
			result:  typeStruct,
			returns: "a struct: args (array: names of the members that the method takes), args_d (struct: the default of each that has one), " +
				"args_v and args_kw (empty arrays; XML-RPC has no such arguments).",
			doc:    "Get the arguments that a method takes, as co2 clients ask for them.",
			faults: []string{noSuchName},
			handle: (*Frontend).methodArgs,
		},
		{
			names:   []string{"system.getCapabilities"},
			group:   "About the methods",
			result:  typeStruct,
			returns: "a struct with one member for each specification: a struct of specUrl (string) and specVersion (int).",
			doc:     "Get the XML-RPC conventions that this relay follows.",
			handle:  (*Frontend).capabilities,
		},
	}
}

// generalMethods are the rest.
func generalMethods() []method {
	return []method{
		{
			names:   []string{"ping", "web.ping"},
			group:   "General",
			result:  typeString,
			returns: "'pong'",
			doc:     "Answer a ping.",
			handle:  (*Frontend).ping,
		},
		{
			names:   []string{"test", "web.test"},
			group:   "General",
			param:   anyParam,
			result:  typeAny,
			returns: "the parameter, unchanged; an empty struct if there was none.",
			doc:     "Answer the parameter unchanged, whatever its type: to try out a client.",
			handle:  (*Frontend).test,
		},
		{
			names: []string{"call_method", "method_call", "web.call_method", "web.method_call"},
			group: "General",
			param: structParam,
			members: []member{
				{name: memberMethod, typ: typeString, doc: "the method to call; the members beside this one become its struct"},
			},
			result:  typeAny,
			returns: "what the method returns.",
			doc: "Call a method by its name.\n" +
				"The further members of the struct are given to the method as its own struct. A method that takes a string gets the one further member. " +
				"Where there is none, the method is called without a parameter. It cannot call itself or system.multicall.",
			faults:      []string{"-32601: there is no method of that name.", "Those of the method."},
			handle:      (*Frontend).callMethod,
			callsOthers: true,
		},
		{
			names: []string{"system.multicall"},
			group: "General",
			param: arrayParam,
			members: []member{
				{name: "methodName", typ: typeString, doc: "of each struct in the array: the method to call"},
				{name: "params", typ: typeArray, doc: "of each struct in the array: its parameters", optional: true, preset: xmlrpc.NewArray()},
			},
			result:  typeArray,
			returns: "an array with one element for each call, in order: an array holding the result, or a struct of faultCode and faultString.",
			doc: "Make several calls in one.\n" +
				"The parameter is an array of structs with methodName and params. They are called one after the other. A call of system.multicall itself is a fault.",
			faults:      []string{"-32602: more calls than the relay takes at once."},
			handle:      (*Frontend).multicall,
			callsOthers: true,
		},
		{
			names:  []string{"system.get_properties", "sys.get_properties", "web.get_properties"},
			group:  "General",
			result: typeStruct,
			returns: "a struct of strings: co2_author, kernel, operating_system, maintainer, maintainer_email, sw_platform, hw_platform, co2_version, hardware, processor; " +
				"uptime (int, seconds), start_time and server_time (dateTimes, UTC), and plugins (array of strings: the relay's own).",
			doc:    "Get the relay's properties: what it is, what it runs on, who looks after it.",
			handle: (*Frontend).getProperties,
		},
	}
}
