"""HTTP itself, and all that steps outside ASGI. Here is what is relied on of uvicorn, and why, on one page.

An application by ASGI sees a request once its head is there, and a body as parts that were copied. A server that
strangers may reach has to refuse earlier, and one that moves gigabytes must not copy. So uvicorn is pinned to the minor
version that this was tested with (pyproject.toml), and ``tests/server/http/test_uvicorn.py`` says which of these names
are gone in another one.

*Limits of a connection* (connection.py). Our class is uvicorn's ``HttpToolsProtocol``, with asyncio's protocol methods
(``connection_made``, ``data_received``, ``connection_lost``, ``pause_writing``, ``resume_writing``), the callbacks of
its parser (``on_message_begin``, ``on_url``, ``on_header``, ``on_headers_complete``, ``on_body``,
``on_message_complete``), any of which may raise to stop the parser, and ``on_response_complete``, ``shutdown`` and
``timeout_keep_alive_handler``. It reads and sets ``app``, ``client``, ``headers``, ``url``, ``scope``, ``loop``,
``transport``, ``access_log``, ``expect_100_continue``, ``timeout_keep_alive``, ``timeout_keep_alive_task``,
``pipeline`` (requests that wait for the answers before theirs), and calls ``_unset_keepalive_if_required``. Answers
that it writes itself begin with a ``STATUS_LINE`` and the ``default_headers`` of ``server_state``, whose
``total_requests`` it counts up.

*A parser that is exchanged.* ``parser`` is replaced by a new one where a body is counted off, or belongs behind an
offer to upgrade. httptools' has ``feed_data``, ``get_method``, ``get_http_version``, ``should_keep_alive``,
``should_upgrade`` and ``set_dangerous_leniencies``.

*A request that is under way.* ``cycle`` is the latest one: ``body`` (which may be bytes, so that a part is not copied
into it), ``message_event``, ``more_body``, ``response_started``, ``response_complete``, ``disconnected``,
``keep_alive``, ``waiting_for_100_continue``, and ``expected_content_length``, from which bytes are taken that a thread
sent. ``flow`` has ``pause_reading``, ``resume_reading`` and ``write_paused``; more than ``HIGH_WATER_LIMIT`` pauses it.

*Long bodies past the event loop* (receiving.py, direct.py). The ASGI scope has two keys of ours,
``xetstore.body_source`` and ``xetstore.body_socket``, and the last ``http.response.body`` has ``sent_bytes``. A thread
works with a duplicate of the socket's descriptor. asyncio's transport has ``max_size``, the bytes that are read at a
time, unless it speaks TLS: there, and for chunked bodies, all goes by ASGI.

*Start and stop* (lifecycle.py). Our class is ``uvicorn.Server`` with ``startup``, ``handle_exit`` and ``on_tick`` (ten
times a second), and ``serve``, ``servers`` (of asyncio, which listen), ``config``, ``should_exit``, ``force_exit``; of
``server_state`` it reads ``tasks``, the requests in flight, and ``connections``. While ``startup`` runs the loop's
``create_server`` has the patience with a TLS handshake, for which uvicorn has no setting.

*Accepting* (listening.py). asyncio calls ``accept`` of the socket that it is given, and comes back after a
BlockingIOError as long as a connection waits; it calls ``close`` of what was accepted.
"""
